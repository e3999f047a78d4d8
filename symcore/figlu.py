"""FiGLU, the gate that makes a network sigma-Asymmetric: sigmoid(F x) * x (Lim et al. 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symcore.networks.recurrent import Candidate, Cell
from symcore.networks.shapes import output_shapes
from symcore.randomness import stream
from symcore.symmetry.automorphisms import Opened
from symcore.symmetry.permutations import derive, operation, trace

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.PReLU, nn.ReLU6, nn.Hardtanh,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Tanhshrink, nn.LogSigmoid,
    nn.Mish, nn.Threshold,
)  # fmt: skip
"""Modules that bend each feature by itself; FiGLU takes the place of all of them (section 3.2)."""
FUNCTIONS = frozenset(
    f"aten.{name}"
    for name in (
        "relu", "relu6", "rrelu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "selu", "celu", "prelu", "hardtanh", "clamp",
        "clamp_min", "hardswish", "hardsigmoid", "hardshrink", "softplus", "softshrink", "log_sigmoid", "mish", "threshold",
    )
)  # fmt: skip
"""What they compute, as ATen operations: in these a graph shows activations that are no modules."""


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
    return [name for name, module in network.named_modules() if isinstance(module, (*ACTIVATIONS, Candidate))]


def replace_activations(network: nn.Module, example: Tensor, std: float | None, seed: int) -> list[str]:
    """Swaps every elementwise activation of a network for FiGLU, in place.

    Widths are read off one forward pass of `example` ([batch, ...]). Returns the names of the replaced modules, in
    the order in which data passes them.

    Raises:
        ValueError: if the network has no activation module that could be replaced.
    """
    shapes = output_shapes(network, activations(network), example)
    if not shapes:
        msg = f"{type(network).__name__} has no activation to replace; FiGLU takes the place of the modules {_accepted()}"
        raise ValueError(msg)
    for layer, (name, shape) in enumerate(shapes.items()):
        network.set_submodule(name, FiGLU(fixed_gate(shape, std, seed, layer)))
    return list(shapes)


def check_gates(network: nn.Module, example: Tensor) -> None:
    """Makes sure that FiGLU has taken the place of every hidden activation of a network, and leaves no permutation.

    The graph shows what modules do not: activations called as functions, modules that have a second name, hidden layers
    without an activation. In a recurrent `Cell` its `Candidate` says where FiGLU goes, and other functions are its gates.

    Args:
        network: what `replace_activations` made.
        example: an input of it, [batch, ...].

    Raises:
        ValueError: naming what is not gated, or whose neurons can still change places.
    """
    if functions := _hidden_functions(network, example):
        msg = (
            f"{', '.join(functions)}: hidden activations that FiGLU cannot take the place of, for they are called as "
            f"functions or under a second name; accepted: a module of its own for each, of {_accepted()}"
        )
        raise ValueError(msg)
    if groups := derive(network, example).groups:
        free = ", ".join(f"{group.name} ({group.size} neurons)" for group in groups)
        msg = (
            f"{free}: neurons that can still change places with FiGLU for activations; accepted: an activation module "
            "for each hidden layer, which gets its features as [..., feature] or [batch, channel, row, column]"
        )
        raise ValueError(msg)


def _accepted() -> str:
    return ", ".join(kind.__name__ for kind in ACTIVATIONS)


def _hidden_functions(network: nn.Module, example: Tensor) -> list[str]:
    """Activations of hidden neurons that stand outside FiGLU and recurrent cells: operation and module."""
    opened = Opened(network)
    traced = trace(opened, example)
    found = []
    for node, its_axes in traced.nodes.items():
        name = operation(node).rstrip("_")
        inside = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        if (
            name in FUNCTIONS
            and not all(map(traced.axes.is_pinned, its_axes))
            and not any(isinstance(opened.get_submodule(path), FiGLU | Cell) for path in inside)
        ):
            owner = inside[-1].removeprefix("network").removeprefix(".") if inside else ""
            found.append(f"{name} in {owner or 'the network itself'}")
    return list(dict.fromkeys(found))
