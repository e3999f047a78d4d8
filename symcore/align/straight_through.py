"""Straight-through estimation (Ainsworth et al. 2023, algorithm 2): permutations that make the midpoint's loss low.

A third network, which starts as a, says what b is permuted to: permuted b is its projection, the permutation of b nearest
to it by weight matching. The loss halfway between a and permuted b gives a gradient, which moves the third network as
if it were permuted b itself. The first projection is the weight matching of b to a, so that the loss halfway over the
images that are used is never above weight matching's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.ascent import Ascent, climb
from symcore.align.learning import Adam, Found, Lines, below, bytes_each, learn, minibatch, under
from symcore.align.matching import Matching, Networks, Tensors, Watch, in_parts
from symcore.align.proof import proven
from symcore.align.weights import double, order
from symcore.checkpoints import StoppedError
from symcore.data.sources import Dataset
from symcore.precision import arithmetic
from symcore.settings import Settings
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import PermutationSpec


class StraightThrough(Settings):
    """Straight-through estimation (Ainsworth et al. 2023, algorithm 2), from weight matching on."""

    label: ClassVar[str] = "straight-through estimation"
    reads_images: ClassVar[bool] = True

    kind: Literal["straight_through"] = "straight_through"
    images: int = Field(default=10_000, ge=1)
    """The first so many training images are learned from, or all where there are fewer; of a graph all nodes."""
    steps: int = Field(default=500, ge=1, le=1_000_000)
    """Steps of Adam, each with a minibatch and a projection."""
    batch: int = Field(default=128, ge=1, le=65_536)
    """Images in a minibatch; of a graph all nodes."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """Adam's step size on the third network's weights."""
    max_sweeps: int = Field(default=100, ge=1, le=10_000)
    """Most sweeps over all layers in one projection."""
    signs: bool = True
    """Neurons may also change sign where their activation is odd, as tanh is."""

    def match(self, networks: Networks, images: Dataset | None, *, seed: int, watch: Watch) -> Matching:
        """Matches all pairs."""
        assert images is not None

        def one(some: Networks, own: Watch) -> Matching:
            return match(some.form, some.a, some.b, some.example, images, self, seed=seed, watch=own)

        batch = minibatch(images, self.batch)
        return in_parts(networks, watch, bytes_each(networks.form, networks.example, batch), one)


def match(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    example_input: Tensor,
    images: Dataset,
    settings: StraightThrough,
    *,
    seed: int = 0,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Matching:
    """Learns permutations of each b, and proves that they leave its function as it is.

    Args:
        network: the common form of all networks; its buffers are used, its parameters are not.
        a: the weights that the networks compute with, by name, [pair, *shape].
        b: likewise.
        example_input: as the network takes it.
        images: what the loss is computed on, on the weights' device.
        settings: of the method.
        seed: of the orders of images and of groups.
        threads: for the assignments; none given, as many as torch uses.
        watch: told and asked on the way.

    Raises:
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if the watch said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    spec = symmetry.derive(network, example_input)
    spec = spec if settings.signs else spec.without_signs()
    lines = Lines(network, a, images, number=settings.images, batch=settings.batch, seed=seed)
    watch = watch or Watch()
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool, arithmetic("float32"):
        projected = _Projected(network, a, b, spec, lines, settings, seed, pool, watch.stopping)
        best = learn(projected, settings.steps if spec.groups else 0, watch)
    return proven(network, example_input, a, b, (spec, *best.found), sweeps=best.step, seed=seed)


class _Projected:
    """The third network of each pair, and its projection: permuted b."""

    def __init__(
        self,
        network: nn.Module,
        a: Tensors,
        b: Tensors,
        spec: PermutationSpec,
        lines: Lines,
        settings: StraightThrough,
        seed: int,
        pool: Executor,
        stopping: Callable[[], bool],
    ) -> None:
        """Nothing is projected yet; see `match`."""
        self._network, self._spec, self._lines = network, spec, lines
        self._settings, self._seed, self._pool, self._stopping = settings, seed, pool, stopping
        self._third = Adam(a, settings.learning_rate)
        self._b = double(network, b)
        count = len(next(iter(a.values())))
        self._ascent = self._from((symmetry.identity(spec, count), symmetry.positive(spec, count)))

    def _from(self, found: Found) -> Ascent:
        """An ascent towards the third network from some permutations."""
        return Ascent(self._spec, self._target(), self._b, *found, self._pool)

    def _target(self) -> Tensors:
        return double(self._network, self._third.values)

    def begin(self) -> None:
        """Projects the third network where it starts.

        Raises:
            StoppedError: if that was asked for between two sweeps.
        """

        def on_sweep(*_: object) -> None:
            if self._stopping():
                raise StoppedError

        self._project(0, on_sweep)

    def _project(self, step: int, on_sweep: Callable[..., None] = lambda *_: None) -> None:
        climb(
            self._ascent,
            lambda sweep: order(self._spec, self._seed, step, sweep),
            self._settings.max_sweeps,
            on_sweep,
        )

    def step(self, number: int) -> None:
        """Moves the third network, and projects it."""
        self._third.step(self._lines.gradient(_single(self._ascent.moved), 0.5, number))
        self._ascent.head_for(self._target())
        self._project(number + 1)

    def found(self) -> Found:
        """The permutations and signs of the projection."""
        permutations, signs = (
            {name: t.clone() for name, t in of.items()}
            for of in (self._ascent.permutations, self._ascent.signs)
        )
        return permutations, signs

    def score(self, found: Found) -> Tensor:
        """The loss halfway between a and the projection, [pair]."""
        del found
        return self._lines.halfway(_single(self._ascent.moved))

    def state(self) -> dict[str, Tensor]:
        """The third network and the projection."""
        permutations, signs = self.found()
        return self._third.state() | under("permutations", permutations) | under("signs", signs)

    def restore(self, state: Tensors) -> None:
        """Takes them up."""
        self._third.restore(state)
        self._ascent = self._from((below("permutations", state), below("signs", state)))


def _single(weights: Tensors) -> dict[str, Tensor]:
    return {name: w.float() for name, w in weights.items()}
