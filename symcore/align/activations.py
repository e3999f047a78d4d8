"""Activation matching: neurons that answer alike on the same inputs belong together.

Each group of neurons is matched on its own, by one assignment on the inner products of features (Lim et al. 2024,
appendix E.1, for GNNs) or on their correlations (Li et al. 2016; Ainsworth et al. 2023, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.learning import bytes_each, minibatch
from symcore.align.matching import Matching, Networks, Watch, assign, in_parts
from symcore.align.proof import proven
from symcore.checkpoints import StoppedError
from symcore.data.sources import Dataset
from symcore.propagation import Graph
from symcore.settings import Settings
from symcore.symmetry.features import Features, features

Tensors = Mapping[str, Tensor]
BATCH = 256
"""Images at once."""
Similarity = Literal["product", "correlation"]
"""Uncentred inner product of features, or their Pearson correlation over inputs."""


class ActivationMatching(Settings):
    """Activation matching (Li et al. 2016; Ainsworth et al. 2023): neurons that answer alike on the same images."""

    label: ClassVar[str] = "activation matching"
    reads_images: ClassVar[bool] = True

    kind: Literal["activation_matching"] = "activation_matching"
    similarity: Similarity = "correlation"
    """Of two neurons: the inner product of their features, or Pearson's correlation."""
    images: int = Field(default=10_000, ge=1)
    """Neurons are compared on the first so many training images, or on all where there are fewer; of a graph on all nodes."""
    signs: bool = True
    """Neurons may also change sign where their activation is odd, as tanh is."""

    def match(self, networks: Networks, images: Dataset | None, *, seed: int, watch: Watch) -> Matching:
        """Matches all pairs; nothing is random."""
        del seed
        assert images is not None
        seen = images.splits["train"].images
        inputs = images.normalise(seen if images.graph else seen[: self.images])
        noun = "nodes" if images.graph else "images"

        def one(some: Networks, own: Watch) -> Matching:
            return match(
                some.form,
                some.a,
                some.b,
                inputs,
                similarity=self.similarity,
                signs=self.signs,
                stopping=own.stopping,
                on_images=lambda done: own.on_progress(done, len(inputs), f"{done} of {len(inputs)} {noun}"),
                graph=images.graph,
            )

        together = minibatch(images, BATCH)
        return in_parts(networks, watch, bytes_each(networks.form, networks.example, together), one)


def _never() -> bool:
    return False


def _ignore(_images: int) -> None:
    pass


def match(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    inputs: Tensor,
    *,
    similarity: Similarity = "product",
    signs: bool = True,
    batch: int = BATCH,
    threads: int | None = None,
    stopping: Callable[[], bool] = _never,
    on_images: Callable[[int], None] = _ignore,
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
        signs: whether neurons may also change sign where they can; one does where its features differ in sign.
        batch: images at once; the last ones are left out where fewer remain, unless there are no others.
        threads: for the assignments; none given, as many as torch uses.
        stopping: asked before each batch whether to give up.
        on_images: told after each batch how many images are done.
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
    spec = cut.spec if signs else cut.spec.without_signs()
    batches = [(part, *graph) for part in inputs[: len(inputs) // size * size].split(size)]
    moments = _moments(cut, network, a, b, batches, stopping, on_images)
    alike = {n: m.xy if similarity == "product" else _correlation(m) for n, m in moments.items()}
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        permutations = {
            g.name: assign(alike[g.name].abs() if g.flip else alike[g.name], pool) for g in spec.groups
        }
    flipped = {g.name: _signs(alike[g.name], permutations[g.name]) for g in spec.groups if g.flip}
    return proven(network, inputs[:2], a, b, (spec, permutations, flipped))


def _signs(alike: Tensor, permutation: Tensor) -> Tensor:
    """The sign of each neuron under which it is more like the one that it is matched to, [pair, n]."""
    chosen = alike.gather(2, permutation.to(alike.device)[:, :, None])[:, :, 0]
    return torch.where(chosen < 0, -1, 1).cpu()


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
    on_images: Callable[[int], None],
) -> dict[str, _Moments]:
    """Goes through the inputs batch by batch."""
    buffers = dict(network.named_buffers())
    total: dict[str, _Moments] = {}
    done = 0
    for inputs in batches:
        if stopping():
            raise StoppedError
        of_a, of_b = cut(a, buffers, inputs), cut(b, buffers, inputs)
        for name, x in of_a.items():
            _add(total, name, x.double(), of_b[name].double())
        done += len(inputs[0])
        on_images(done)
    return total


def _add(total: dict[str, _Moments], name: str, x: Tensor, y: Tensor) -> None:
    """Adds one batch's features [pair, row, n]."""
    new = _Moments(x.shape[1], x.sum(1), y.sum(1), x.square().sum(1), y.square().sum(1), x.mT @ y)
    old = total.get(name)
    if old is not None:
        sums = {field: getattr(old, field) + getattr(new, field) for field in vars(new)}
        new = _Moments(**sums)
    total[name] = new


def _correlation(moments: _Moments) -> Tensor:
    """Pearson's correlation, [pair, n, n]; a neuron that never changes correlates with none."""
    n = moments.rows
    covariance = moments.xy / n - (moments.x / n).unsqueeze(2) * (moments.y / n).unsqueeze(1)
    spread_x = (moments.xx / n - (moments.x / n).square()).clamp(min=0).sqrt().unsqueeze(2)
    spread_y = (moments.yy / n - (moments.y / n).square()).clamp(min=0).sqrt().unsqueeze(1)
    return torch.nan_to_num(covariance / (spread_x * spread_y), nan=0.0, posinf=0.0, neginf=0.0)
