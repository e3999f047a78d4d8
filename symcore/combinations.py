"""Many networks whose weights are linear combinations of a few: what is linear in the weights is computed for the few alone.

A first layer's output X W^T is linear in W. On a plane W = W0 + x U + y V it is X W0^T + x X U^T + y X V^T: three
products in place of one for each cell, the same numbers but for rounding. Which values are linear is read from the traced graph
of one network, so that any architecture has its saving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.func import functionalize, vmap

from symcore.program import Program, flat

aten = torch.ops.aten
Tensors = Sequence[Tensor]

REARRANGING = {
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.expand.default,
    aten.neg.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.sum.dim_IntList,
    aten.t.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,  # noqa: SLF001 - an operation's name
}
"""Linear in their first argument, the only tensor."""
ADDING = {aten.add.Tensor, aten.sub.Tensor}
"""Linear where both terms are."""
MULTIPLYING: dict[Any, tuple[slice, int | None]] = {
    aten.mul.Tensor: (slice(0, 2), None),
    aten.mm.default: (slice(0, 2), None),
    aten.bmm.default: (slice(0, 2), None),
    aten.addmm.default: (slice(1, 3), 0),
    aten.convolution.default: (slice(0, 2), 2),
}
"""Linear where one factor is and the other knows no weight, and the bias is; places of the factors and of the bias."""


class _Parts(NamedTuple):
    """A function of (weights, others) in two."""

    linear: Program
    """[*weights, *others] -> values, linear in the weights, for networks stacked along the first axis."""
    rest: Program
    """[*values, *others] -> the function's results, likewise."""
    rest_of_one: Program
    """The same for one network that is not stacked: fused operations, such as a product with its bias."""


def combine(coefficients: Tensor, few: Tensor) -> Tensor:
    """Sums few [k, ...] with coefficients [member, k] -> [member, ...]; in full precision, unlike a GPU's TF32 product."""
    columns = coefficients.t().reshape(*coefficients.shape[::-1], *[1] * (few.ndim - 1))
    total = columns[0] * few[0]
    for column, term in zip(columns[1:], few[1:], strict=True):
        total.addcmul_(column, term)
    return total


class CombinationProgram:
    """Calls `function(weights, others) -> tuple of tensors`, written for one network, for many at once.

    First `linear` for the few networks that the others are combinations of, then `rest` for as many combinations of
    its values (`combine`) as wanted. Keeps its traces for each shape of `others`.
    """

    def __init__(self, function: Callable[[Tensors, Tensors], tuple[Tensor, ...]]) -> None:
        """Traces nothing yet."""
        self._function = function
        self._parts: dict[tuple[Any, ...], _Parts] = {}

    def linear(self, few: Tensors, others: Tensors) -> tuple[Tensor, ...]:
        """What is linear in the weights, of each of the few networks: weights [k, *shape] -> values [k, ...]."""
        key = _kind(others)
        if key not in self._parts:
            self._parts[key] = _split(self._function, [w[0] for w in few], others)
        return self._parts[key].linear([*few, *others])

    def rest(self, values: Tensors, others: Tensors) -> tuple[Tensor, ...]:
        """The function's results [member, ...] from combined values [member, ...], with the others of `linear`."""
        parts = self._parts[_kind(others)]
        if len(values[0]) > 1:
            return parts.rest([*values, *others])
        results = parts.rest_of_one([*(value[0] for value in values), *others])
        return tuple(result.unsqueeze(0) for result in results)


def _kind(tensors: Tensors) -> tuple[Any, ...]:
    """What a trace depends on."""
    return tuple((t.shape, t.dtype, t.device) for t in tensors)


def _split(
    function: Callable[[Tensors, Tensors], tuple[Tensor, ...]], weights: Tensors, others: Tensors
) -> _Parts:
    count = len(weights)

    def positional(*args: Tensor) -> tuple[Tensor, ...]:
        return function(args[:count], args[count:])

    # without in-place operations every node is a value of its own; operations with gradients of their own must go first
    tensors = [*weights, *others]
    module = flat(functionalize(flat(positional, tensors), remove="mutations"), tensors)
    cut = _last_linear(module.graph, count)
    rest = _since(module, cut, count)
    return _Parts(
        linear=_stacked(_until(module, cut), count),
        rest=_stacked(rest, len(cut)),
        rest_of_one=Program(lambda tensors: rest(*tensors)),
    )


def _stacked(one: fx.GraphModule, own: int) -> Program:
    """A program for many networks: the first `own` arguments are each network's own, the others shared."""

    def many(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        in_dims = (0,) * own + (None,) * (len(tensors) - own)
        results: tuple[Tensor, ...] = vmap(one, in_dims=in_dims)(*tensors)
        return results

    return Program(many)


def _last_linear(graph: fx.Graph, weights: int) -> list[fx.Node]:
    """The nodes that are linear in the first `weights` inputs and that something else than a linear node uses."""
    linear = dict.fromkeys([node for node in graph.nodes if node.op == "placeholder"][:weights])
    varying = set(linear)
    for node in graph.nodes:
        if _keeps_linear(node, linear, varying):
            linear[node] = None
        if varying.intersection(node.all_input_nodes):
            varying.add(node)
    return [node for node in linear if any(user not in linear for user in node.users)]


def _keeps_linear(node: fx.Node, linear: dict[fx.Node, None], varying: set[fx.Node]) -> bool:
    """Whether a node is linear in the weights, given which of its inputs are, and which depend on them at all."""
    if node.target in REARRANGING:
        return node.args[0] in linear
    if node.target in ADDING:
        return all(term in linear for term in node.args[:2])
    if node.target not in MULTIPLYING:
        return False
    places, bias = MULTIPLYING[node.target]
    factors = node.args[places]
    plain = bias is None or node.args[bias] is None or node.args[bias] in linear
    return plain and sum(f in linear for f in factors) == 1 == sum(f in varying for f in factors)


def _until(module: fx.GraphModule, cut: list[fx.Node]) -> fx.GraphModule:
    """The part of a traced function that leads up to the cut, which it gives out."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.graph_copy(module.graph, copies)
    graph.output(tuple(copies[node] for node in cut))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _since(module: fx.GraphModule, cut: list[fx.Node], weights: int) -> fx.GraphModule:
    """The part of a traced function that goes on from the cut, which takes the weights' place in its arguments."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    values = [graph.placeholder(f"value_{place}") for place in range(len(cut))]
    results = graph.graph_copy(module.graph, copies)
    graph.output(results)
    for node, value in zip(cut, values, strict=True):
        copies[node].replace_all_uses_with(value)
    graph.eliminate_dead_code()
    for node in [node for node in graph.nodes if node.op == "placeholder"][len(cut) :][:weights]:
        graph.erase_node(node)
    return fx.GraphModule(module, graph)
