"""What the layers of a network put out, seen in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def output_shapes(network: nn.Module, modules: Iterable[str], example: Tensor) -> dict[str, torch.Size]:
    """Shapes of some modules' first outputs for an example [batch, ...], in the order in which data passes them."""
    shapes: dict[str, torch.Size] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shapes.setdefault(name, output.shape)

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(record(name)) for name in modules]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return shapes


def layers(network: nn.Module) -> list[str]:
    """Names of the modules that hold no others."""
    return [name for name, module in network.named_modules() if not list(module.children())]
