"""Many networks as one flat tensor program: a vmapped function traced once per input shape to plain ATen operations.

vmap and autograd cost more than the arithmetic of small networks. Tracing (torch's `make_fx`) leaves a straight list of
batched operations, forward and backward together, that runs with neither; on a GPU it is what a CUDA graph captures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
Tensors = Sequence[Tensor]


class Program:
    """Calls `function(list of tensors) -> tuple of tensors` through its trace, made at the first call of each shape."""

    def __init__(
        self, function: Callable[[list[Tensor]], tuple[Tensor, ...]], as_products: Sequence[int] = ()
    ) -> None:
        """Traces nothing yet; those results whose places are in `as_products` come as (A, B) if they are A^T B."""
        self._function, self._as_products = function, as_products
        self._traces: dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(self, tensors: Tensors) -> tuple[Tensor, ...]:
        """Runs the program without recording gradients."""
        with torch.no_grad():
            return self.trace(tensors)(*tensors)

    def trace(self, tensors: Tensors) -> Callable[..., tuple[Tensor, ...]]:
        """The flat program for tensors of these shapes, strides, types and devices."""
        key = tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)
        if key not in self._traces:
            self._traces[key] = self._flatten(tensors)
        return self._traces[key]

    def _flatten(self, tensors: Tensors) -> Callable[..., tuple[Tensor, ...]]:
        def positional(*args: Tensor) -> tuple[Tensor, ...]:
            return self._function(list(args))

        module = flat(positional, tensors)
        simplify(module.graph)
        leave_products(module.graph, self._as_products)
        module.recompile()
        return module


def flat(function: Callable[..., Any], tensors: Tensors) -> fx.GraphModule:
    """The operations of `function(*tensors)`, one after another.

    Each result is noted as a fake tensor. torch makes a mode for each of them unless there is one for all; a mode reads
    the whole stack when it is made, which took half the time of tracing.
    """
    with tracing(TracingContext(FakeTensorMode())):
        return make_fx(function)(*tensors)


def simplify(graph: fx.Graph) -> None:
    """Takes out operations that change nothing or that nothing needs, and turns transposed products into products of transposes."""
    for node in list(graph.nodes):
        if _is_idle(node):
            node.replace_all_uses_with(node.args[0])
    for node in list(graph.nodes):
        _turn_product(graph, node)
        _let_go(graph, node)
    graph.eliminate_dead_code()


def leave_products(graph: fx.Graph, places: Sequence[int]) -> None:
    """Gives out (A, B) in place of each result at these places that is a batched product A^T B."""
    output = graph.output_node()
    results = list(cast("tuple[Any, ...]", output.args[0]))
    for place in places:
        product = results[place]
        if product.target is aten.bmm.default and _is_transpose(product.args[0]):
            results[place] = (product.args[0].args[0], product.args[1])
    output.args = (tuple(results),)
    graph.eliminate_dead_code()


def _is_idle(node: fx.Node) -> bool:
    """Whether a node is x * 1, or a view of x with x's own shape."""
    if node.target is aten.mul.Scalar:
        return bool(node.args[1] == 1)
    if node.target not in {aten.view.default, aten._unsafe_view.default, aten.expand.default}:  # noqa: SLF001
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and source.meta["val"].shape == node.meta["val"].shape


def _let_go(graph: fx.Graph, node: fx.Node) -> None:
    """Ones in the shape of a value need not the value: gradients begin with them, and what is differentiated may be wanted by none."""
    if node.target is not aten.ones_like.default:
        return
    like = node.meta["val"]
    with graph.inserting_before(node):
        ones = graph.call_function(
            aten.full.default, (list(like.shape), 1), {"dtype": like.dtype, "device": like.device}
        )
    ones.meta["val"] = like
    node.replace_all_uses_with(ones)


def _is_transpose(node: object) -> bool:
    """Whether a node swaps the last two of three axes."""
    return (
        isinstance(node, fx.Node) and node.target is aten.transpose.int and node.args[1:] in {(1, 2), (2, 1)}
    )


def _turn_product(graph: fx.Graph, node: fx.Node) -> None:
    """(A B)^T -> B^T A^T: a weight's gradient comes out in the weight's own layout instead of turned on its side."""
    product = node.args[0] if _is_transpose(node) else None
    if not isinstance(product, fx.Node) or product.target is not aten.bmm.default:
        return
    left, right = product.all_input_nodes
    with graph.inserting_before(node):
        turned = graph.call_function(aten.bmm.default, (_transposed(graph, right), _transposed(graph, left)))
    turned.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(turned)


def _transposed(graph: fx.Graph, operand: fx.Node) -> fx.Node:
    if _is_transpose(operand):
        return operand.all_input_nodes[0]
    node = graph.call_function(aten.transpose.int, (operand, 1, 2))
    node.meta["val"] = operand.meta["val"].transpose(1, 2)
    return node
