"""FiGLU, the gate that makes a network sigma-Asymmetric: sigmoid(F x) * x (Lim et al. 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from symcore.networks.mlp import ACTIVATIONS
from symcore.randomness import stream


class FiGLU(nn.Module):
    """Gates each feature by a fixed random mixture of all: [..., d] -> [..., d]; F is a buffer, never trained."""

    def __init__(self, fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed)

    def forward(self, x: Tensor) -> Tensor:
        """sigmoid(F x) * x along the last axis."""
        fixed: Tensor = self.get_buffer("fixed")
        return torch.sigmoid(nn.functional.linear(x, fixed)) * x


def fixed_gate(width: int, std: float | None, seed: int, layer: int) -> Tensor:
    """F for one layer, [width, width] with i.i.d. normal entries of the given standard deviation (1/sqrt(width))."""
    draw = stream(seed, "figlu", layer).standard_normal((width, width))
    return torch.from_numpy(draw * (width**-0.5 if std is None else std)).float()


def replace_activations(network: nn.Module, example: Tensor, std: float | None, seed: int) -> list[str]:
    """Swaps every elementwise activation of a network for FiGLU, in place.

    Widths are read off one forward pass of `example` ([batch, ...]). Returns the names of the replaced modules, in
    the order in which data passes them.

    Raises:
        ValueError: if the network has no activation module that could be replaced.
    """
    widths = _activation_widths(network, example)
    if not widths:
        msg = f"{type(network).__name__} has no activation to replace; FiGLU takes the place of {', '.join(ACTIVATIONS)}"
        raise ValueError(msg)
    for layer, (name, width) in enumerate(widths.items()):
        network.set_submodule(name, FiGLU(fixed_gate(width, std, seed, layer)))
    return list(widths)


def _activation_widths(network: nn.Module, example: Tensor) -> dict[str, int]:
    """Size of the last axis that each activation module puts out, in the order in which they run."""
    widths: dict[str, int] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            widths.setdefault(name, output.shape[-1])

        return hook

    kinds = tuple(ACTIVATIONS.values())
    modules = [(name, m) for name, m in network.named_modules() if isinstance(m, kinds)]
    hooks = [module.register_forward_hook(record(name)) for name, module in modules]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return widths
