"""Layer-wise paths: from a network to the same network with some layers of another (Adilova et al. 2024)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from symcore.asymmetry import Parameters
from symcore.networks.layout import layout
from symcore.networks.recurrent import Cell

Order = Literal["single", "bottom", "top"]
"""Which layers move: one alone, all from the input up to it, or all from it up to the output."""
ORDERS: tuple[Order, ...] = get_args(Order)


def layers(network: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters of each layer, in the order in which data meets them.

    A layer is a module with a weight matrix or kernel, or one of several such weights of a module, and what follows it without any,
    such as the norm behind it. All maps of a recurrent cell are one layer: no gate is nearer to the input than another.
    """
    cells = [name for name, module in network.named_modules() if isinstance(module, Cell)]

    def owner(name: str) -> str:
        return next((cell for cell in cells if name.startswith(f"{cell}.")), name.rpartition(".")[0])

    order = layout(network)
    present = {name for name, _ in network.named_parameters()}  # FiGLU has none, where a slope was
    maps = Counter(map(owner, order.maps))
    found: dict[str, list[str]] = {}
    current = ""
    for name in filter(present.__contains__, order.parameters):
        own = owner(name)
        if name in order.maps and maps[own] > 1 and own not in cells:
            current = name
        elif own in cells or maps[own] == 1 or not found:
            current = own
        found.setdefault(current, []).append(name)
    return found


def moving(layer: int, count: int, order: Order) -> range:
    """Places of the layers that move, of `count`."""
    return {"single": range(layer, layer + 1), "bottom": range(layer + 1), "top": range(layer, count)}[order]


def grafted(a: Mapping[str, Tensor], b: Mapping[str, Tensor], taken: Iterable[Sequence[str]]) -> Parameters:
    """Network a with the parameters of some layers from b, each given by its names."""
    names = {name for layer in taken for name in layer}
    return {name: b[name] if name in names else weights for name, weights in a.items()}
