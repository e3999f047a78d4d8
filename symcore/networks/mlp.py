"""The multilayer perceptron of Lim et al. 2024: a linear map, LayerNorm (or BatchNorm) and an activation per hidden layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from symcore.networks.batchnorm import BatchNorm
from symcore.settings import Settings

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "batch": BatchNorm}


class HiddenLayer(nn.Module):
    """One hidden layer, [batch, in] -> [batch, out]: linear map, normalisation, activation."""

    def __init__(self, in_features: int, out_features: int, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Hidden features, [batch, out]."""
        out: Tensor = self.activation(self.norm(self.linear(x)))
        return out


class MLP(nn.Module):
    """Inputs of any shape are flattened; `depth` hidden layers of one width; a linear readout gives logits."""

    def __init__(
        self, in_features: int, classes: int, width: int, depth: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        fan_ins = [in_features] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(
            HiddenLayer(
                fan_in,
                width,
                NORMS[norm](width) if norm in NORMS else nn.Identity(),
                ACTIVATIONS[activation](),
            )
            for fan_in in fan_ins
        )
        self.readout = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x)
        logits: Tensor = self.readout(x)
        return logits


class MLPSpec(Settings):
    """A multilayer perceptron (Lim et al. 2024, appendix E.1: width 512, three hidden layers)."""

    label: ClassVar[str] = "MLP"

    kind: Literal["mlp"] = "mlp"
    width: int = Field(default=128, ge=1, le=8192)
    """Neurons in each hidden layer."""
    depth: int = Field(default=3, ge=1, le=64)
    """Number of hidden layers."""
    norm: Literal["layer", "batch", "none"] = "layer"
    """Normalisation between the linear map and the activation: over an image's neurons, over a batch's images, or none."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Hidden nonlinearity; the sigma-Asymmetric treatment replaces it with FiGLU."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> MLP:
        """A freshly initialised network for inputs of `input_shape` (without the batch axis)."""
        in_features = 1
        for size in input_shape:
            in_features *= size
        return MLP(in_features, classes, self.width, self.depth, self.norm, self.activation)
