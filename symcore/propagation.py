"""What nodes of a graph get from their neighbours: h + mean over neighbours, as one sparse product for all networks.

torch 2.13 can neither vmap over sparse tensors nor compile them, so the product is an operation of our own on the parts
of a CSR matrix: its gradient is the product with the transpose, and many networks side by side are more columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

with (
    warnings.catch_warnings()
):  # torch says once that sparse CSR tensors are beta; what is used of them is tested here
    warnings.filterwarnings("ignore", "Sparse (CSR tensor support is in beta|invariant checks)", UserWarning)
    torch.sparse_csr_tensor(torch.zeros(1), torch.zeros(0), torch.zeros(0), (0, 0), check_invariants=False)


class Graph(NamedTuple):
    """S = I + D^-1 A of an undirected graph in CSR form; S and its transpose have their entries in the same places."""

    rows: Tensor
    """Where each row begins, int64 [node + 1]."""
    columns: Tensor
    """int64 [entry]"""
    values: Tensor
    """Of S, float32 [entry]: 1 for a node itself, 1 / degree for each of its neighbours."""
    transposed: Tensor
    """Of S^T, in the same order."""

    @property
    def edges(self) -> int:
        """Edges between two nodes, each counted once."""
        return (len(self.columns) - len(self.rows) + 1) // 2


def graph_of(edges: Tensor, nodes: int) -> Graph:
    """The graph with edges [2, edge] taken in both directions; double ones count once, loops not at all.

    Raises:
        ValueError: if an edge names a node that is not there.
    """
    ends = edges.numpy()
    if ends.size and not 0 <= ends.min() <= ends.max() < nodes:
        msg = f"edges: they name nodes {ends.min()} to {ends.max()}; accepted: 0 to {nodes - 1}"
        raise ValueError(msg)
    source, target = ends[:, ends[0] != ends[1]]
    itself = np.arange(nodes)
    places = np.unique(
        np.concatenate([source * nodes + target, target * nodes + source, itself * (nodes + 1)])
    )
    rows, columns = np.divmod(places, nodes)
    entries = np.bincount(rows, minlength=nodes)
    share = 1 / np.maximum(entries - 1, 1)  # of each neighbour; one of a node's entries is itself
    return Graph(
        torch.from_numpy(np.concatenate([[0], entries.cumsum()])),
        torch.from_numpy(columns),
        torch.from_numpy(np.where(rows == columns, 1, share[rows]).astype(np.float32)),
        torch.from_numpy(np.where(rows == columns, 1, share[columns]).astype(np.float32)),
    )


def propagate(graph: Graph, x: Tensor) -> Tensor:
    """S x for features x [node, channel]: each node's own plus the mean of its neighbours'; without any, its own."""
    return _apply(*graph, x)


@torch.library.custom_op("symcore::sparse_product", mutates_args=())
def _sparse_product(rows: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """A square CSR matrix times x [node, channel]."""
    nodes = len(rows) - 1
    matrix = torch.sparse_csr_tensor(
        rows, columns, values.to(x.dtype), (nodes, nodes), check_invariants=False
    )
    return matrix @ x.contiguous()


@_sparse_product.register_fake
def _(_rows: Tensor, _columns: Tensor, _values: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_sparse_product.register_vmap
def _(_info: object, in_dims: tuple[Any, ...], *inputs: Tensor) -> tuple[Tensor, int]:
    *matrix, x = inputs
    side_by_side = x.movedim(in_dims[-1], 1)  # [node, member, channel]
    return _sparse_product(*matrix, side_by_side.flatten(1)).view(side_by_side.shape), 1


class _Propagation(torch.autograd.Function):
    """The product with its gradient, in the form that torch.func's transforms take."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, columns: Tensor, values: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        del transposed
        product: Tensor = _sparse_product(rows, columns, values, x)
        return product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401
        del output
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        rows, columns, values, transposed = ctx.saved_tensors
        return None, None, None, None, _apply(rows, columns, transposed, values, *grads)


_apply: Callable[..., Tensor] = _Propagation.apply
