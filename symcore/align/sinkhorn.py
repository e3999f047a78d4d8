"""Sinkhorn re-basin (Pena et al. 2023): permutations made soft, learned by gradients, and hardened at the end.

Each group's permutation is a doubly stochastic matrix S(X), the limit of normalising the rows and columns of exp X in turn.
X follows the gradient of a loss of networks between a and softly permuted b, or of their distance. Neurons that can change
sign have a second matrix S(X) T, entry by entry, which mixes the weights that change with them; T is learned as X is, each
step cut to [-1, 1], so that a sign can always turn (the paper knows no signs: they are our extension). A temperature would divide X and change nothing else, for Adam's steps are as long whatever the gradient's scale: the learning rate says both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from symcore.align.learning import Adam, Found, Lines, bytes_each, learn, minibatch
from symcore.align.matching import Matching, Networks, Tensors, Watch, assign, dot, in_parts, inner_product
from symcore.align.proof import proven
from symcore.align.soft import Soft, moved
from symcore.data.sources import Dataset
from symcore.precision import arithmetic
from symcore.randomness import stream
from symcore.settings import Settings
from symcore.symmetry import permutations as symmetry
from symcore.symmetry.permutations import PermutationSpec

Objective = Literal["midpoint", "random", "distance"]


class Sinkhorn(Settings):
    """Sinkhorn re-basin (Pena et al. 2023): soft permutations, learned by gradients."""

    label: ClassVar[str] = "Sinkhorn re-basin"

    kind: Literal["sinkhorn"] = "sinkhorn"
    objective: Objective = "random"
    """What is made small: the loss halfway, or at a random point of the line in each step, or the distance of weights."""
    images: int = Field(default=10_000, ge=1)
    """The first so many training images are learned from, or all where there are fewer; of a graph all nodes, for the distance none."""
    steps: int = Field(default=500, ge=1, le=1_000_000)
    """Steps of Adam."""
    batch: int = Field(default=128, ge=1, le=65_536)
    """Images in a minibatch; of a graph all nodes."""
    learning_rate: float = Field(default=0.3, gt=0, le=100)
    """Adam's step size on the logarithms of the soft permutations' entries."""
    iterations: int = Field(default=20, ge=1, le=10_000)
    """How often rows and columns are normalised."""

    @property
    def reads_images(self) -> bool:
        """Whether the objective is a loss."""
        return self.objective != "distance"

    def match(self, networks: Networks, images: Dataset | None, *, seed: int, watch: Watch) -> Matching:
        """Matches all pairs."""

        def one(some: Networks, own: Watch) -> Matching:
            return match(some.form, some.a, some.b, some.example, images, self, seed=seed, watch=own)

        batch = minibatch(images, self.batch)
        return in_parts(networks, watch, bytes_each(networks.form, networks.example, batch), one)


def match(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    example_input: Tensor,
    images: Dataset | None,
    settings: Sinkhorn,
    *,
    seed: int = 0,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Matching:
    """Learns permutations and signs of each b, and proves that they leave its function as it is.

    Each pair keeps the permutations, from the identity on, under which the loss halfway is lowest, or the distance.

    Args:
        network: the common form of all networks; its buffers are used, its parameters are not.
        a: the weights that the networks compute with, by name, [pair, *shape].
        b: likewise.
        example_input: as the network takes it.
        images: what the loss is computed on, on the weights' device; none for the distance.
        settings: of the method.
        seed: of the order of images and of the random points.
        threads: for the assignments; none given, as many as torch uses.
        watch: told and asked on the way.

    Raises:
        AlignmentError: if a permuted network computes something else than the original.
        StoppedError: if the watch said so.
        DerivationError: if the network's permutations cannot be derived.
    """
    spec = symmetry.derive(network, example_input)
    aims = _distance(a, b, spec) if settings.objective == "distance" else None
    if aims is None:
        assert images is not None
        aims = _losses(network, a, b, spec, images, settings, seed)
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool, arithmetic("float32"):
        logits = _Logits(a, b, spec, settings, aims, pool)
        best = learn(logits, settings.steps if spec.groups else 0, watch or Watch())
    return proven(network, example_input, a, b, (spec, *best.found), sweeps=best.step, seed=seed)


Aims = tuple[Callable[[Tensors, int], dict[str, Tensor]], Callable[[Found], Tensor]]
"""The gradient of what is made small with respect to permuted b, at a step, and how bad hard permutations are."""


def _distance(a: Tensors, b: Tensors, spec: PermutationSpec) -> Aims:
    """Half the gradient of |permuted b - a|^2, and that squared distance."""

    def gradient(mixed: Tensors, step: int) -> dict[str, Tensor]:
        del step
        return {name: w - a[name] for name, w in mixed.items()}

    def squared(found: Found) -> Tensor:
        return dot(a, a) + dot(b, b) - 2 * inner_product(a, b, spec, *found)

    return gradient, squared


def _losses(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    spec: PermutationSpec,
    images: Dataset,
    settings: Sinkhorn,
    seed: int,
) -> Aims:
    """The gradient of the loss halfway, or at a random point of the line, and the loss halfway."""
    lines = Lines(network, a, images, number=settings.images, batch=settings.batch, seed=seed)

    def gradient(mixed: Tensors, step: int) -> dict[str, Tensor]:
        halfway = settings.objective == "midpoint"
        position = 0.5 if halfway else stream(seed, "sinkhorn.position", step).random()
        return lines.gradient(mixed, position, step)

    return gradient, lambda found: lines.halfway(symmetry.permute(b, spec, *found))


class _Logits:
    """The soft permutations of every pair, by their logits, and by theirs the signs."""

    def __init__(
        self, a: Tensors, b: Tensors, spec: PermutationSpec, settings: Sinkhorn, aims: Aims, pool: Executor
    ) -> None:
        """Starts where each neuron is half itself; see `match`."""
        self._b, self._spec, self._iterations, self._pool = b, spec, settings.iterations, pool
        self._gradient, self.score = aims
        self._logits = Adam(_start(spec, a), settings.learning_rate) if spec.groups else None

    def begin(self) -> None:
        """There is nothing to do."""

    def step(self, number: int) -> None:
        """Moves the logits."""
        assert self._logits is not None
        b, spec = self._b, self._spec
        leaves = {name: x.detach().requires_grad_() for name, x in self._logits.values.items()}
        with torch.enable_grad():
            whole = moved(b, spec, self._mixing(leaves))
            mixed = {name: w for name, w in whole.items() if name in spec.parameters}
        by_weight = self._gradient({name: w.detach() for name, w in whole.items()}, number)
        found = torch.autograd.grad(
            list(mixed.values()), list(leaves.values()), [by_weight[name] for name in mixed]
        )
        self._logits.step(dict(zip(leaves, found, strict=True)))
        for group in spec.groups:
            if group.flip:
                self._logits.values[SIGN + group.name].clamp_(-1, 1)

    def _mixing(self, logits: Tensors) -> Soft:
        """The matrices of logits."""
        kept = {g.name: sinkhorn(logits[g.name], self._iterations) for g in self._spec.groups}
        return Soft(kept, {g.name: kept[g.name] * logits[SIGN + g.name] for g in self._spec.groups if g.flip})

    def found(self) -> Found:
        """The hard permutations nearest to the soft ones, and the sign that each neuron has where it goes."""
        if self._logits is None:
            return {}, {}
        permutations, signs = {}, {}
        soft = self._mixing(self._logits.values)
        for group in self._spec.groups:
            score = self._logits.values[group.name]
            if group.flip:
                turned = soft.flipped[group.name]
                score = soft.kept[group.name] + turned.abs()
            permutations[group.name] = assign(score, self._pool)
            if group.flip:
                chosen = turned.cpu().take_along_dim(permutations[group.name].unsqueeze(2), 2)[:, :, 0]
                signs[group.name] = torch.where(chosen < 0, -1, 1)
        return permutations, signs

    def state(self) -> dict[str, Tensor]:
        """The logits."""
        return self._logits.state() if self._logits else {}

    def restore(self, state: Tensors) -> None:
        """Takes them up."""
        if self._logits:
            self._logits.restore(state)


SIGN = "sign of "
"""Stands before a group's name where T of its signs is meant."""


def _start(spec: PermutationSpec, a: Tensors) -> dict[str, Tensor]:
    """X and T by group, [pair, n, n], under which each neuron is half itself and half all others, of no sign."""
    itself = Soft.identity(spec, next(iter(a.values())).float())
    own = {g.name: itself.kept[g.name] * math.log(max(2, g.size - 1)) for g in spec.groups}
    return own | {SIGN + name: one.clone() for name, one in itself.flipped.items()}


class _Sinkhorn(torch.autograd.Function):
    """Alternating normalisation, and its derivative at the limit, which needs none of the steps on the way."""

    @staticmethod
    def forward(context: Any, logits: Tensor, iterations: int) -> Tensor:  # noqa: ANN401 - torch has no type for it
        """The soft permutations of logits, [pair, n, n]."""
        for _ in range(iterations):
            logits = logits - logits.logsumexp(2, keepdim=True)
            logits = logits - logits.logsumexp(1, keepdim=True)
        soft = logits.exp()
        context.save_for_backward(soft)
        context.iterations = iterations
        return soft

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """P * (G - r 1^T - 1 c^T), whose rows and columns sum to 0; r and c are found in turn as above."""
        (soft,) = context.saved_tensors
        weighted = soft * gradients[0]
        row_sums, column_sums = weighted.sum(2, keepdim=True), weighted.sum(1, keepdim=True)
        columns = torch.zeros_like(column_sums)
        for _ in range(context.iterations):
            rows = row_sums - soft @ columns.mT
            columns = column_sums - (soft.mT @ rows).mT
        return weighted - soft * (rows + columns), None


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Soft permutations [pair, n, n] of logits: rows and columns of their exponentials are normalised in turn.

    The derivative is that of the limit (implicit differentiation, Eisenberger et al. 2022).
    """
    soft: Tensor = _Sinkhorn.apply(logits, iterations)  # type: ignore[no-untyped-call]
    return soft
