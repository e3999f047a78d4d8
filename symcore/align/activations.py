"""Activation matching: neurons that answer alike on the same inputs belong together.

Each group of neurons is matched on its own, by one assignment on the inner products of features (Lim et al. 2024,
appendix E.1, for GNNs) or on their correlations (Li et al. 2016; Ainsworth et al. 2023, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from symcore.align.matching import Matching, assign, inner_product
from symcore.align.proof import prove
from symcore.propagation import Graph
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.features import Features, features
from symcore.training import StoppedError

Tensors = Mapping[str, Tensor]
Similarity = Literal["product", "correlation"]
"""Uncentred inner product of features, or their Pearson correlation over inputs."""


def _never() -> bool:
    return False


def match(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    inputs: Tensor,
    *,
    similarity: Similarity = "product",
    batch: int = 256,
    threads: int | None = None,
    stopping: Callable[[], bool] = _never,
    graph: Graph | tuple[()] = (),
) -> Matching:
    """Matches the neurons of each b to those of its a, and proves that permuting b leaves its function as it is.

    BatchNorm takes the statistics of each batch.

    Args:
        network: the common form of all networks; its buffers are used, its parameters are not.
        a: the weights that the networks compute with, by name, [pair, *shape].
        b: likewise.
        inputs: what the features are compared on, [image, *input_shape], on the weights' device.
        similarity: of two neurons.
        batch: images at once; the last ones are left out where fewer remain, unless there are no others.
        threads: for the assignments; none given, as many as torch uses.
        stopping: asked before each batch whether to give up.
        graph: whose nodes the inputs are, of a network that looks at neighbours; they are one batch.

    Raises:
        ValueError: if there is no input.
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if `stopping` said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    if not len(inputs):
        msg = "inputs: got none; at least one image is needed"
        raise ValueError(msg)
    size = len(inputs) if graph else min(batch, len(inputs))
    cut = features(network, (inputs[:size], *graph))
    batches = [(part, *graph) for part in inputs[: len(inputs) // size * size].split(size)]
    moments = _moments(cut, network, a, b, batches, stopping)
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        permutations = {
            name: assign(_product(m) if similarity == "product" else _correlation(m), pool)
            for name, m in moments.items()
        }
    prove(network, inputs[:2], b, cut.spec, permutations)
    once = torch.ones(len(next(iter(a.values()))), dtype=torch.int64)
    identity = symmetry.identity(cut.spec, len(once))
    return Matching(
        spec=cut.spec,
        permutations=permutations,
        objective=inner_product(a, b, cut.spec, permutations),
        identity_objective=inner_product(a, b, cut.spec, identity),
        sweeps=once,
        restart=torch.zeros_like(once),
    )


@dataclass
class _Moments:
    """Sums over the rows seen of one group's features, float64: of x, y, x^2, y^2 [pair, n], of x y [pair, n, n]."""

    rows: int
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor


@torch.no_grad()
def _moments(
    cut: Features,
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    batches: Sequence[tuple[Tensor, ...]],
    stopping: Callable[[], bool],
) -> dict[str, _Moments]:
    """Goes through the inputs batch by batch."""
    buffers = dict(network.named_buffers())
    total: dict[str, _Moments] = {}
    for inputs in batches:
        if stopping():
            raise StoppedError
        of_a, of_b = cut(a, buffers, inputs), cut(b, buffers, inputs)
        for name, x in of_a.items():
            _add(total, name, x.double(), of_b[name].double())
    return total


def _add(total: dict[str, _Moments], name: str, x: Tensor, y: Tensor) -> None:
    """Adds one batch's features [pair, row, n]."""
    new = _Moments(x.shape[1], x.sum(1), y.sum(1), x.square().sum(1), y.square().sum(1), x.mT @ y)
    old = total.get(name)
    if old is not None:
        sums = {field: getattr(old, field) + getattr(new, field) for field in vars(new)}
        new = _Moments(**sums)
    total[name] = new


def _product(moments: _Moments) -> Tensor:
    return moments.xy


def _correlation(moments: _Moments) -> Tensor:
    """Pearson's correlation, [pair, n, n]; a neuron that never changes correlates with none."""
    n = moments.rows
    covariance = moments.xy / n - (moments.x / n).unsqueeze(2) * (moments.y / n).unsqueeze(1)
    spread_x = (moments.xx / n - (moments.x / n).square()).clamp(min=0).sqrt().unsqueeze(2)
    spread_y = (moments.yy / n - (moments.y / n).square()).clamp(min=0).sqrt().unsqueeze(1)
    return torch.nan_to_num(covariance / (spread_x * spread_y), nan=0.0, posinf=0.0, neginf=0.0)
