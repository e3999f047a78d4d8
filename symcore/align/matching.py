"""What every alignment finds: a permutation of every group of neurons, for each pair of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from symcore.checkpoints import Keeper
from symcore.symmetry.permutations import PermutationSpec, permute

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Matching:
    """Permutations of every b that bring its neurons to those of its a.

    |a - permuted b|^2 = |a|^2 + |b|^2 - 2 * objective, so the largest objective is the smallest distance.
    """

    spec: PermutationSpec
    permutations: dict[str, Tensor]
    """By group, [pair, n] int64 on the CPU, as `symcore.symmetry.permutations.permute` takes them for b."""
    objective: Tensor
    """<a, permuted b> over all parameters, [pair] float64."""
    identity_objective: Tensor
    """<a, b>, [pair] float64."""
    sweeps: Tensor
    """Sweeps over all groups in the ascent that was kept, or steps of learning until what was kept, [pair] int64."""
    restart: Tensor
    """The ascent that was kept, [pair] int64; 0 is the one from the identity."""
    signs: dict[str, Tensor] = field(default_factory=dict)
    """-1 or 1 for every neuron of those groups that can change sign, [pair, n] on the CPU."""

    @classmethod
    def join(cls, parts: Sequence[Matching]) -> Matching:
        """The matchings of some pairs and of others as one."""

        def together(which: Callable[[Matching], dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([which(part)[name] for part in parts]) for name in which(parts[0])}

        return cls(
            spec=parts[0].spec,
            permutations=together(lambda part: part.permutations),
            objective=torch.cat([part.objective for part in parts]),
            identity_objective=torch.cat([part.identity_objective for part in parts]),
            sweeps=torch.cat([part.sweeps for part in parts]),
            restart=torch.cat([part.restart for part in parts]),
            signs=together(lambda part: part.signs),
        )


def are_finite(weight: Tensor) -> Tensor:
    """Whether all entries are, of each of [network, *shape], bool [network]."""
    return weight.reshape(len(weight), -1).isfinite().all(1)


def check_finite(side: str, name: str, finite: Tensor) -> None:
    """Raises ValueError unless a parameter is finite in every pair, bool [pair], at one side, "a" or "b"."""
    if not finite.all():
        msg = f"{side}: {name} is not finite in pair {int(finite.int().argmin())}; such weights cannot be matched"
        raise ValueError(msg)


@dataclass(frozen=True)
class Networks:
    """Networks of one form, and which pairs of them are matched."""

    form: nn.Module
    """Its buffers are used, its parameters are not."""
    weights: Tensors
    """That the networks compute with, by name, [network, *shape]."""
    pairs: tuple[tuple[int, int], ...]
    """(a, b) by place among the networks; b is permuted."""
    example: Tensor
    """An input, [batch, *input_shape], on the weights' device."""

    def __post_init__(self) -> None:
        """Raises ValueError if a network that is matched has weights that are not finite; the message names its pair."""
        for name, weight in self.weights.items():
            finite = are_finite(weight)
            for side, members in zip("ab", zip(*self.pairs, strict=True), strict=False):
                check_finite(side, name, finite[list(members)])

    @property
    def a(self) -> dict[str, Tensor]:
        """Weights of the first network of each pair, [pair, *shape]."""
        return {name: w[[first for first, _ in self.pairs]] for name, w in self.weights.items()}

    @property
    def b(self) -> dict[str, Tensor]:
        """Weights of the second network of each pair, [pair, *shape]."""
        return {name: w[[second for _, second in self.pairs]] for name, w in self.weights.items()}

    @property
    def parameters(self) -> int:
        """Parameters of one network."""
        return sum(w[0].numel() for w in self.weights.values())


@dataclass(frozen=True)
class Watch:
    """What matching tells and asks while it runs."""

    stopping: Callable[[], bool] = lambda: False
    """Asked many times whether to give up; when true, StoppedError is raised."""
    on_progress: Callable[[float, float, str], None] = lambda _done, _total, _note: None
    """Told how much is done of how much, and on what."""
    on_look: Callable[[int, int, Tensor], None] = lambda _pair, _step, _loss: None
    """Where permutations are learned, told now and then: first pair, step, and what is made small under those, [pair]."""
    keeper: Keeper = field(default_factory=Keeper)
    """Where permutations are learned, keeps the state of that."""


BYTES = {"cpu": 2**31, "cuda": 2**35}
"""Bytes that the pairs which are matched together may take, about; the others wait."""


def in_parts(
    networks: Networks, watch: Watch, bytes_each: int, one: Callable[[Networks, Watch], Matching]
) -> Matching:
    """Matches as many pairs together as fit the device; no pair's permutations depend on its neighbours.

    Args:
        networks: what is matched.
        watch: told and asked on the way.
        bytes_each: memory that a pair takes.
        one: matches some of the pairs.
    """
    device = networks.example.device.type
    at_once = max(1, BYTES.get(device, BYTES["cpu"]) // bytes_each)
    starts = range(0, len(networks.pairs), at_once)

    def part(index: int, first: int) -> Matching:
        def on_progress(done: float, total: float, note: str) -> None:
            watch.on_progress(index + done / total, len(starts), note)

        def on_look(pair: int, step: int, loss: Tensor) -> None:
            watch.on_look(first + pair, step, loss)

        some = replace(networks, pairs=networks.pairs[first : first + at_once])
        keeper = watch.keeper.part(f"{first}-{first + len(some.pairs)}")
        return one(some, Watch(watch.stopping, on_progress, on_look, keeper))

    return Matching.join([part(index, first) for index, first in enumerate(starts)])


def inner_product(
    a: Tensors, b: Tensors, spec: PermutationSpec, permutations: Tensors, signs: Tensors | None = None
) -> Tensor:
    """<a, permuted b> over all parameters [pair, *shape], [pair] float64 on the CPU."""
    return dot(a, permute(b, spec, permutations, signs))


def dot(a: Tensors, b: Tensors) -> Tensor:
    """<a, b> over all parameters [pair, *shape], [pair] float64 on the CPU."""
    products = [
        torch.einsum("pi,pi->p", w.double().reshape(len(w), -1), b[name].double().reshape(len(w), -1))
        for name, w in a.items()
    ]
    return torch.stack(products).sum(0).cpu()


def assign(similarity: Tensor, pool: Executor) -> Tensor:
    """The permutation of each pair with the largest sum of similarity[pair, i, p[i]], [pair, n] int64 on the CPU.

    Where all i prefer different j, that is the best assignment; only others go through the search for one.
    """
    preferred = similarity.argmax(2)
    open_pairs = (
        preferred.sort(1).values != torch.arange(similarity.shape[2], device=similarity.device)
    ).any(1)
    rows, found = open_pairs.nonzero()[:, 0], preferred.cpu()
    if len(rows):
        some = similarity if len(rows) == len(similarity) else similarity[rows]
        some = priced(some) if some.is_cuda else some  # a CPU would take longer for prices than they save
        found[rows.cpu()] = torch.from_numpy(np.stack(list(pool.map(_assign, _on_host(some).numpy()))))
    return found


TEMPERATURE, STEPS = 0.1, 10
"""Of the soft assignments that prices come from, in standard deviations of a pair's similarities, and how many steps."""


def priced(similarity: Tensor) -> Tensor:
    """[pair, i, j] less a price of each j, [pair, 1, j]: the best assignments stay, and a search finds them in half the time.

    The prices are those of a few Sinkhorn steps (Cuturi 2013), under which few i prefer the same j.
    """
    spread = similarity.std((1, 2), correction=0, keepdim=True)
    scale = torch.where(spread > 0, TEMPERATURE * spread, 1)
    soft = similarity / scale
    price = torch.zeros_like(soft[:, :1])
    for _ in range(STEPS):
        price = (soft - (soft - price).logsumexp(2, keepdim=True)).logsumexp(1, keepdim=True)
    return similarity - price * scale


def _on_host(tensor: Tensor) -> Tensor:
    """A tensor on the CPU; from a GPU through pinned memory, which is several times as fast."""
    if not tensor.is_cuda:
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor)


def _assign(similarity: np.ndarray) -> np.ndarray:
    columns: np.ndarray = linear_sum_assignment(similarity, maximize=True)[1]
    return columns
