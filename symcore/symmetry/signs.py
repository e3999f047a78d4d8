"""Which neurons can change sign: odd activations such as tanh let a neuron's inputs and outputs flip together.

Flipping neuron j multiplies some values on its axes by -1. Whether it does on one axis of one tensor is an unknown of
0 or 1; every operation of the graph ties the unknowns of its arguments to those of its result by equations mod 2. What
solves them all, and flips some parameter, is a symmetry: of a tanh cell the rows of its candidate's maps and the
columns of every map that reads the state (the group is then that of signed permutations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from symcore.symmetry.partition import Axes

Unknown = tuple[str, int]
"""One axis of one tensor: the node's or parameter's name and the axis."""
Equation = frozenset[Unknown]
"""Unknowns whose sum is even."""
Flip = tuple[Unknown, ...]
"""Axes of parameters whose entries change sign with the neuron."""

ODD = {
    f"aten.{name}"
    for name in (
        "tanh", "sin", "tan", "asin", "atan", "sinh", "asinh", "erf", "neg", "sign", "hardshrink", "softshrink",
    )
}  # fmt: skip
STRUCTURAL = {
    f"aten.{name}"
    for name in (
        "alias", "clone", "contiguous", "detach", "dropout", "flatten", "lift_fresh_copy", "numpy_T",
        "permute", "reshape", "select", "slice", "squeeze", "t", "to", "transpose", "unflatten", "unsqueeze", "view",
    )
}  # fmt: skip
"""Results hold the argument's values on the argument's axes."""
SUMS = {"aten.sum", "aten.mean"}
ZEROS = {"aten.zeros", "aten.zeros_like", "aten.new_zeros"}


@dataclass
class _Equations:
    """Collects what the graph says about the unknowns on axes that are not pinned."""

    names: dict[fx.Node, str]
    nodes: dict[fx.Node, Axes]
    is_pinned: Callable[[Any], bool]
    found: list[Equation] = field(default_factory=list)

    def at(self, node: fx.Node, place: int) -> Equation:
        """The unknown on an axis; nothing where the axis is pinned, for nothing flips there."""
        place %= len(self.nodes[node])
        return (
            frozenset() if self.is_pinned(self.nodes[node][place]) else frozenset({(self.names[node], place)})
        )

    def say(self, *unknowns: Equation) -> None:
        """Says that the sum of these is even."""
        total: Equation = frozenset()
        for unknown in unknowns:
            total ^= unknown
        if total:
            self.found.append(total)

    def never(self, node: fx.Node) -> None:
        """Says that nothing may flip on any axis of a tensor."""
        for place in range(len(self.nodes[node])):
            self.say(self.at(node, place))


def _told(
    nodes: dict[fx.Node, Axes], names: dict[fx.Node, str], is_pinned: Callable[[Any], bool]
) -> list[Equation]:
    """The equations of a whole graph.

    Args:
        nodes: every node with its axes.
        names: a name for every node; placeholders of one parameter share its name.
        is_pinned: whether an axis has a fixed order, so that it is no neuron's.
    """
    told = _Equations(names, nodes, is_pinned)
    for node in nodes:
        if node.op == "call_function":
            _operation(told, node)
    return told.found


def _operation(told: _Equations, node: fx.Node) -> None:
    name = str(getattr(node.target, "overloadpacket", node.target)).rstrip("_")  # in place or not
    tensors = [source for source in node.all_input_nodes if source in told.nodes]
    if name in ZEROS:
        return  # zeros are their own negatives
    if name in {"aten.linear", "aten.matmul", "aten.mm", "aten.bmm", "aten.addmm"}:
        _product(told, node, name)
    elif name in {"aten.mul", "aten.div"}:
        _multiply(told, node, node.args[:2])
    elif name in {"aten.add", "aten.sub"}:
        _add(told, node)
    elif name in ODD or (name == "aten.hardtanh" and _is_symmetric(node)):
        _same(told, node, tensors)
    elif name in STRUCTURAL or name in SUMS:
        _carry(told, node, tensors)
    elif name == "aten.layer_norm":
        _layer_norm(told, node)
    elif name == "aten.rms_norm":
        _multiply(told, node, [node.args[0], *node.args[2:3]])
    else:
        for tensor in (*tensors, node):
            told.never(tensor)


def _is_symmetric(node: fx.Node) -> bool:
    """Whether hardtanh clips as far on one side of 0 as on the other; ReLU6 is a hardtanh that does not."""
    bounds: Any = (
        {"min_val": -1, "max_val": 1}
        | dict(zip(("min_val", "max_val"), node.args[1:], strict=False))
        | node.kwargs
    )
    return bool(bounds["min_val"] == -bounds["max_val"])


def _product(told: _Equations, node: fx.Node, name: str) -> None:
    """Both sides of a contraction flip together; the axes that stay keep what they have."""
    args: tuple[Any, ...] = node.args
    *bias, x, weight = args if name == "aten.addmm" else args[:2]
    bias = bias or list(args[2:3])
    rows, inner = (0, 1) if name == "aten.linear" else (-1, -2 if len(told.nodes[weight]) > 1 else -1)
    told.say(told.at(x, -1), told.at(weight, inner))
    out = len(told.nodes[node])
    if name == "aten.linear" or len(told.nodes[weight]) > 1:
        told.say(told.at(node, -1), told.at(weight, rows))
    for place in range(out - 1):
        sources = [told.at(x, place)] if len(told.nodes[x]) > place + 1 else []
        if name in {"aten.matmul", "aten.bmm"} and place < out - 2:
            sources.append(told.at(weight, place))
        told.say(told.at(node, place), *sources)
    for b in bias:
        if isinstance(b, fx.Node):
            _summand(told, node, b)


def _aligned(told: _Equations, node: fx.Node, operand: fx.Node) -> Iterator[tuple[int, int | None]]:
    """Axes of a broadcast result with the operand's axis beneath, none where the operand repeats one value."""
    result, own = told.nodes[node], told.nodes[operand]
    for back in range(1, len(result) + 1):
        there = back <= len(own) and own[-back].size == result[-back].size
        yield -back, -back if there else None


def _summand(told: _Equations, node: fx.Node, operand: fx.Node) -> None:
    """What is added flips with the sum; a repeated value cannot."""
    for place, beneath in _aligned(told, node, operand):
        told.say(told.at(node, place), *([] if beneath is None else [told.at(operand, beneath)]))


def _add(told: _Equations, node: fx.Node) -> None:
    for operand in node.args[:2]:
        if isinstance(operand, fx.Node):
            _summand(told, node, operand)
        elif operand != 0:
            told.never(node)


def _multiply(told: _Equations, node: fx.Node, operands: Sequence[Any]) -> None:
    """A product of values flips where an odd number of its factors does; a root mean square has no sign."""
    factors = [operand for operand in operands if isinstance(operand, fx.Node)]
    for back in range(1, len(told.nodes[node]) + 1):
        beneath = []
        for factor in factors:
            place = dict(_aligned(told, node, factor))[-back]
            if place is not None:
                beneath.append(told.at(factor, place))
        told.say(told.at(node, -back), *beneath)


def _same(told: _Equations, node: fx.Node, tensors: Iterable[fx.Node]) -> None:
    for tensor in tensors:
        for place in range(len(told.nodes[node])):
            told.say(told.at(node, place), told.at(tensor, place))


def _carry(told: _Equations, node: fx.Node, tensors: Iterable[fx.Node]) -> None:
    """Axes that pass carry their unknown; those that vanish must not flip, nor those that come from nowhere."""
    kept = {axis.number: place for place, axis in enumerate(told.nodes[node])}
    for tensor in tensors:
        for place, axis in enumerate(told.nodes[tensor]):
            other = kept.pop(axis.number, None)
            told.say(told.at(tensor, place), *([] if other is None else [told.at(node, other)]))
    for place in kept.values():
        told.say(told.at(node, place))


def _layer_norm(told: _Equations, node: fx.Node) -> None:
    """A mean over neurons sees their signs; what it puts out flips with its scale and shift."""
    args: tuple[Any, ...] = node.args
    x, _shape, *affine = args
    told.never(x)
    scale_and_shift = [a for a in affine if isinstance(a, fx.Node)]
    for one in scale_and_shift:
        _summand(told, node, one)
    if not scale_and_shift:
        told.never(node)


def flips(
    nodes: dict[fx.Node, Axes], names: dict[fx.Node, str], is_pinned: Callable[[Any], bool]
) -> list[Flip]:
    """What can change sign in a network: axes of parameters that flip together, for each kind of neuron.

    Args:
        nodes: every node of the graph with its axes.
        names: a name for every node; placeholders of one parameter share its name.
        is_pinned: whether an axis has a fixed order, so that it is no neuron's.
    """
    unknowns = dict.fromkeys(
        (names[node], place)
        for node, its_axes in nodes.items()
        for place, axis in enumerate(its_axes)
        if not is_pinned(axis)
    )
    parameters = {names[node] for node in nodes if node.op == "placeholder"}
    return _solutions(_told(nodes, names, is_pinned), unknowns, parameters)


def _solutions(equations: Iterable[Equation], unknowns: Iterable[Unknown], wanted: set[str]) -> list[Flip]:
    """A basis of what solves the equations, restricted to the axes of wanted tensors; empty if only 0 does.

    Args:
        equations: sums that are even.
        unknowns: all that may stand in them.
        wanted: names of tensors, the parameters.
    """
    numbers = {unknown: 1 << n for n, unknown in enumerate(unknowns)}
    rows: dict[int, int] = {}  # leading bit -> equation in reduced form
    for equation in equations:
        row = sum(numbers[unknown] for unknown in equation)
        for lead, other in rows.items():
            if row & lead:
                row ^= other
        if row:
            lead = row & -row
            rows = {k: other ^ row if other & lead else other for k, other in rows.items()} | {lead: row}
    basis: list[Flip] = []
    for free in (bit for bit in numbers.values() if bit not in rows):
        ones = free | sum(lead for lead, row in rows.items() if row & free)
        flip = tuple(sorted(u for u, bit in numbers.items() if ones & bit and u[0] in wanted))
        if flip:
            basis.append(flip)
    return _independent(basis)


def _independent(flips: list[Flip]) -> list[Flip]:
    """Those flips that are not products of the ones before them."""
    kept: list[Flip] = []
    reduced: list[set[Unknown]] = []
    for flip in flips:
        rest = set(flip)
        for other in reduced:
            if min(other) in rest:
                rest ^= other
        if rest:
            kept.append(flip)
            reduced.append(rest)
    return kept
