"""FiGLU, the gate that makes a network sigma-Asymmetric: sigmoid(F x) * x (Lim et al. 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symcore.networks.mlp import ACTIVATIONS
from symcore.networks.recurrent import Candidate
from symcore.networks.shapes import output_shapes
from symcore.randomness import stream


class FiGLU(nn.Module):
    """Gates each feature by a fixed random mixture of all; F is a buffer, never trained.

    F [d, d] mixes vectors [..., d]; F [d, d, 1, 1] mixes the channels of feature maps [batch, d, h, w].
    """

    def __init__(self, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed)

    def forward(self, x: Tensor) -> Tensor:
        """sigmoid(F x) * x, in the shape of x."""
        fixed: Tensor = self.get_buffer("fixed")
        mix = nn.functional.conv2d if fixed.ndim == 4 else nn.functional.linear
        return torch.sigmoid(mix(x, fixed)) * x


def fixed_gate(shape: Sequence[int], std: float | None, seed: int, layer: int) -> Tensor:
    """F for features [batch, ..., d] or [batch, d, h, w], with i.i.d. normal entries of the given standard deviation.

    None given, it is 1/sqrt(d).
    """
    maps = len(shape) == 4
    width = shape[1] if maps else shape[-1]
    draw = stream(seed, "figlu", layer).standard_normal((width, width))
    fixed = torch.from_numpy(draw * (width**-0.5 if std is None else std)).float()
    return fixed[:, :, None, None] if maps else fixed


def activations(network: nn.Module) -> list[str]:
    """Names of the modules that FiGLU can take the place of, in the network's own order."""
    kinds = (*ACTIVATIONS.values(), Candidate)
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


def replace_activations(network: nn.Module, example: Tensor, std: float | None, seed: int) -> list[str]:
    """Swaps every elementwise activation of a network for FiGLU, in place.

    Widths are read off one forward pass of `example` ([batch, ...]). Returns the names of the replaced modules, in
    the order in which data passes them.

    Raises:
        ValueError: if the network has no activation module that could be replaced.
    """
    shapes = output_shapes(network, activations(network), example)
    if not shapes:
        msg = f"{type(network).__name__} has no activation to replace; FiGLU takes the place of {', '.join(ACTIVATIONS)}"
        raise ValueError(msg)
    for layer, (name, shape) in enumerate(shapes.items()):
        network.set_submodule(name, FiGLU(fixed_gate(shape, std, seed, layer)))
    return list(shapes)
