"""What kinds have in common that join the two networks of each pair: settings, checks, and the networks themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from jobs.inputs import aligned, check_members, population
from jobs.job import Job
from jobs.kinds.align import check_alignment, check_data, trained_source
from jobs.kinds.members import check_gates
from jobs.records import Column
from jobs.specs import DataRunSpec, Pairs, RunSpec, SpecHash
from symcore.asymmetry import Parameters
from symcore.landscape.paths import alphas
from symcore.metrics import Array
from symcore.population import Population


class PairsSpec(DataRunSpec):
    """Base of such kinds."""

    source: SpecHash
    """The train run whose networks are the endpoints."""
    alignment: SpecHash | None = None
    """The align run whose permutations are applied to the second networks; none: they are taken as they are."""
    pairs: Pairs
    """Members (a, b) of each pair: the path goes from a to b."""

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run if there is one."""
        return (self.source,) if self.alignment is None else (self.source, self.alignment)


def check_ends(spec: PairsSpec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the runs which are read fit: the networks exist, on this data, and are aligned pair by pair.

    Args:
        spec: the run.
        upstream: specs of the runs that it reads, as far as they are known.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(type(spec), spec.source, spec.pairs, upstream)
    if source is not None:
        check_data(type(spec), spec.data, spec.source, source)
    check_alignment(type(spec), spec.alignment, spec.source, spec.pairs, upstream)


def ends(spec: PairsSpec, job: Job) -> tuple[Population, Parameters, Parameters]:
    """The first network of each pair, with the masks and buffers that the pair shares, and the weights of both.

    Returns:
        The first networks, and effective weights of the first and (permuted) second networks, [pair, *shape].

    Raises:
        ValueError: if a pair's networks are not there, or differ in what is not trained.
    """
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)
    for pair in spec.pairs:
        check_gates("pairs", pair, trained)
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    first, second = trained.select(firsts), trained.select(seconds).effective()
    return first, first.effective(), aligned(second, spec.alignment, trained, job)


POINTS_AT_ONCE = 64
"""Points of paths that are evaluated and recorded together, at least those of one path."""


def parts(spec: PairsSpec, points: int) -> Iterator[slice]:
    """Some pairs after others, as many as are evaluated and recorded together."""
    at_once = max(1, POINTS_AT_ONCE // points)
    for first in range(0, len(spec.pairs), at_once):
        yield slice(first, min(first + at_once, len(spec.pairs)))


def of_pairs(part: slice, tensors: Mapping[str, Tensor]) -> Parameters:
    """Tensors of some pairs, [pair, *shape]."""
    return {name: tensor[part] for name, tensor in tensors.items()}


def of_points(part: slice, values: Mapping[str, Array]) -> dict[str, Column]:
    """Columns of a table with a row for each point of some pairs' paths, of values [pair, alpha] by name."""
    pairs, points = next(iter(values.values())).shape
    flat = {name: value.ravel() for name, value in values.items()}
    return {
        "pair": np.repeat(np.arange(part.start, part.stop, dtype=np.int16), points),
        "alpha": np.tile(alphas(points), pairs),
        **flat,
    }


def by_pair(rows: pa.RecordBatch, column: str, points: int) -> Array:
    """A column of such a table, [pair, alpha]."""
    values: Array = rows[column].to_numpy().reshape(-1, points)
    return values


def steps(job: Job, pairs: int, order: Sequence[str]) -> Callable[..., Callable[[int], None]]:
    """Begins one step of a run after another, each named as in `order`.

    What it gives reports how many pairs are done, or parts of pairs, of which each has `parts`; it stops where that is
    asked for.
    """

    def begin(step: str, parts: int = 1) -> Callable[[int], None]:
        def on_parts(done: int) -> None:
            job.progress(order.index(step) * pairs + done / parts, len(order) * pairs, step)
            job.pause_point()

        on_parts(0)
        return on_parts

    return begin


def on_split(split: str) -> str:
    """The name of the step that evaluates a split."""
    return f"{split} split"
