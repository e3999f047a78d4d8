"""The curvature kind: the Hessian's largest eigenvalues and its trace at trained networks and on paths between them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import chain, product
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import AfterValidator, Field, model_validator

from jobs.checkpoints import Checkpoint
from jobs.designs import field_error, rows_together, size
from jobs.estimates import Estimate
from jobs.inputs import aligned, dataset, population
from jobs.job import Job
from jobs.kinds.align import check_alignment, check_data, trained_source
from jobs.kinds.curve import Spec as CurveSpec
from jobs.kinds.curve import bends
from jobs.kinds.ends import of_pairs
from jobs.kinds.interpolate import Split
from jobs.kinds.members import Members, check_finite, check_gates, check_members, summarised
from jobs.kinds.surface import Images, evaluated, rows
from jobs.kinds.train import Spec as TrainSpec
from jobs.populations import Seed
from jobs.records import Column
from jobs.specs import DataRunSpec, Member, RunSpec, SpecHash, refusal
from symcore.asymmetry import Parameters
from symcore.checkpoints import Keeper
from symcore.data.sources import Dataset
from symcore.landscape.curvature import Eigenvalues, Hessian, Trace, joined, largest, trace
from symcore.landscape.curves import bezier
from symcore.landscape.surfaces import subset
from symcore.metrics import ROWS, Array
from symcore.population import Population
from symcore.precision import Precision, arithmetic

T = TypeVar("T")
Place = Literal["network", "midpoint", "path", "curve"]
"""A network; halfway between two; anywhere on the straight path between them; on a trained curve."""
NOUNS: dict[Place, tuple[str, str]] = {
    "network": ("network", "networks"),
    "midpoint": ("midpoint", "midpoints"),
    "path": ("point of a path", "points of paths"),
    "curve": ("point of a curve", "points of curves"),
}
"""One and more of them in words."""
NUMBERS = {"cpu": 2**27, "cuda": 2**31}
"""Numbers in the vectors of Lanczos' method at most; networks beyond are taken after one another."""
BETWEEN = ("alphas", "alignment", "curve")
"""Settings that mean something only where there are pairs."""


def _once(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(alphas)) < len(alphas):
        msg = f"{list(alphas)} holds a position twice; accepted: each once"
        raise refusal(msg)
    return alphas


MIDWAY = (0.5,)
Alphas = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...],
    Field(min_length=1, max_length=1001),
    AfterValidator(_once),
]
"""Positions on the way from the first network of a pair, 0, to the second, 1."""


class Spec(DataRunSpec):
    """Curvature of the loss at trained networks, and on the paths between pairs of them.

    With BatchNorm the loss is that of training, whose batches are normalised by their own statistics.
    """

    kind: Literal["curvature"] = "curvature"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks are looked at."""
    members: Members
    """Which of its networks."""
    pairs: tuple[tuple[Member, Member], ...] = ()
    """Pairs (a, b) of members whose midpoints, or other points between them, are looked at too."""
    alphas: Alphas = Field(default=MIDWAY, exclude_if=lambda alphas: alphas == MIDWAY)
    """Where between them: 0 at a, 1 at b."""
    alignment: SpecHash | None = Field(default=None, exclude_if=operator.not_)
    """The align run whose permutations are applied to the second networks of pairs; none: they are taken as they are."""
    curve: SpecHash | None = Field(default=None, exclude_if=operator.not_)
    """The curve run on whose Bezier curves the points between these pairs lie; none: on straight paths."""
    split: Split = "train"
    """Part of the data set whose loss it is."""
    images: Images = 2000
    """Images of it that are drawn, as many of each class as can be; 0: all."""
    subset_seed: Seed = 0
    """Seeds which images are drawn."""
    eigenvalues: int = Field(default=5, ge=1, le=100)
    """Largest eigenvalues wanted."""
    steps: int = Field(default=40, ge=1, le=1000)
    """Steps of Lanczos' method, at least as many; the more, the smaller the residuals."""
    probes: int = Field(default=40, ge=2, le=10_000)
    """Random vectors behind the trace; its standard error falls with their square root."""
    seed: Seed = 0
    """Seeds the first vector of Lanczos' method and the random vectors."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.steps < self.eigenvalues:
            msg = f"{self.steps} for {self.eigenvalues} eigenvalues; accepted: {self.eigenvalues} or more"
            raise field_error(Spec, ("steps",), self.steps, msg)
        for field in () if self.pairs else BETWEEN:
            value = getattr(self, field)
            if value != Spec.model_fields[field].default:
                msg = f"{value}, and no pair is named; accepted: this left out, or pairs"
                raise field_error(Spec, (field,), value, msg)
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run and the curve run if there are such."""
        return tuple(run for run in (self.source, self.alignment, self.curve) if run is not None)

    @property
    def between(self) -> Place:
        """What a point between two networks is called."""
        if self.curve:
            return "curve"
        return "midpoint" if self.alphas == MIDWAY else "path"


WHERE = [
    pa.field("place", pa.string(), nullable=False),  # see Place
    pa.field("number", pa.int32(), nullable=False),  # the member, or between two the count of pairs' alphas
]
TABLES = {
    "curvature_eigenvalue": pa.schema(
        [
            *WHERE,
            pa.field("rank", pa.int32(), nullable=False),  # from the largest, 0
            pa.field("value", pa.float64(), nullable=False),  # nats per squared unit of weight
            pa.field("residual", pa.float64(), nullable=False),  # how far it may lie from a true one
        ]
    ),
    "curvature_trace": pa.schema(
        [
            *WHERE,
            pa.field("trace", pa.float64(), nullable=False),  # nats per squared unit of weight
            pa.field("error", pa.float64(), nullable=False),  # standard error over the probes
            pa.field("parameters", pa.int64(), nullable=False),  # that are trained
        ]
    ),
    "curvature_point": pa.schema(
        [
            *WHERE,
            pa.field("a", pa.int32(), nullable=False),  # the member, or the first of the pair
            pa.field("b", pa.int32(), nullable=False),  # the member, or the second of the pair
            pa.field("alpha", pa.float64(), nullable=False),  # 0 at a, 1 at b
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and that the runs that join them join these pairs.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(Spec, spec.source, spec.pairs, upstream)
    if source is not None:
        check_data(Spec, spec.data, spec.source, source)
        check_members(Spec, spec.members, spec.source, len(source.seeds))
    check_alignment(Spec, spec.alignment, spec.source, spec.pairs, upstream)
    known = upstream.get(spec.curve) if spec.curve else None
    if known is None:
        return
    wanted = (spec.source, spec.alignment, spec.pairs)
    if not isinstance(known, CurveSpec) or (known.source, known.alignment, known.pairs) != wanted:
        msg = f"{spec.curve} does not join these pairs, aligned as here; accepted: a curve run that does"
        raise field_error(Spec, ("curve",), spec.curve, msg)


def title(spec: Spec) -> str:
    """At how many networks and points between them."""
    counts: tuple[tuple[Place, int], ...] = (
        ("network", len(spec.members)),
        (spec.between, len(spec.pairs) * len(spec.alphas)),
    )
    told = [f"{count} {NOUNS[place][count > 1]}" for place, count in counts if count]
    return f"Curvature at {' and '.join(told)} on {spec.data}"


PRODUCT = 6
"""Forward passes that a product of the Hessian with a vector takes: two differentiations, each twice a pass."""


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """A product with the Hessian per step of Lanczos' method and per probe."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one, networks = size(source.network, spec.data), len(spec.members) + len(spec.pairs) * len(spec.alphas)
    work = networks * (spec.steps + spec.probes) * rows(spec.data, spec.split, spec.images)
    vectors = min(networks * (spec.steps + 1) * one.parameters, NUMBERS["cpu"])
    at_once = rows_together(source.network, spec.data)
    return Estimate(
        flop=float(PRODUCT * one.forward_flop) * work,
        bytes_memory=4 * (vectors + 6 * networks * one.parameters + 8 * at_once * one.activations),
        steps=-(-work // at_once),
    )


class Point(NamedTuple):
    """Where the curvature is looked at."""

    place: Place
    number: int
    ends: tuple[int, int]
    """The network twice, or the two that it lies between."""
    alpha: float


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Finds eigenvalues of all points, then traces, as many points together as memory allows.

    Raises:
        StoppedError: if the job was asked to stop; it goes on with the points that are not recorded, and a checkpoint
            of those at work is in its folder.
        ValueError: if networks have weights that are not finite, or those of a pair different gates.
    """
    trained = population(spec.source, job)
    check_members(Spec, spec.members, spec.source, trained.size)
    check_finite([*spec.members, *chain(*spec.pairs)], trained)
    count = evaluated(spec.data, spec.split, spec.images)
    images = subset(dataset(spec, job), spec.split, count, spec.subset_seed)
    for pair in spec.pairs:
        check_gates("pairs", pair, trained)
    work = _Work(spec, trained, images, job)
    with arithmetic(spec.precision):
        told = summarised(trained, spec.members, images, [spec.split], job)
        found = {"largest eigenvalue": work.eigenvalues(), "trace": work.traces()}
    job.once("curvature_point", work.where)
    work.checkpoint.drop()
    for name, values in found.items():
        for place in dict.fromkeys(point.place for point in work.points):
            own = [value for value, point in zip(values, work.points, strict=True) if point.place == place]
            told[f"{place}/{name}"] = float(np.mean(own))
    return told


class _Work:
    """The curvature at all points, some of them together; what an earlier attempt recorded is not found again."""

    def __init__(self, spec: Spec, trained: Population, images: Dataset, job: Job) -> None:
        """Finds nothing yet.

        Args:
            spec: the run.
            trained: the networks of its source.
            images: with the split that is looked at.
            job: takes records and progress, may ask to stop, and has the folder that the checkpoint is in.
        """
        self._spec, self._trained, self._images, self._job = spec, trained, images, job
        self.checkpoint = Checkpoint(job)
        self.points = [Point("network", member, (member, member), 0.0) for member in spec.members]
        ways = enumerate(product(spec.pairs, spec.alphas))
        self.points += [Point(spec.between, number, pair, alpha) for number, (pair, alpha) in ways]
        self._controls = _controls(spec, trained, job)

    def where(self) -> dict[str, Column]:
        """Columns that say which points these are."""
        a, b = np.array([point.ends for point in self.points], np.int32).T
        return {
            "place": [point.place for point in self.points],
            "number": np.array([point.number for point in self.points], np.int32),
            "a": a,
            "b": b,
            "alpha": np.array([point.alpha for point in self.points]),
        }

    def eigenvalues(self) -> list[float]:
        """Records the largest eigenvalues of each point; the largest of all, by point."""
        spec = self._spec

        def largest_of(part: slice) -> Eigenvalues:
            on_step, keeper = partial(self._tell, part, spec.steps, 0), self._keeper("eigenvalues", part)
            hessian = self._hessian(part)
            return largest(
                hessian, spec.eigenvalues, steps=spec.steps, seed=spec.seed, on_step=on_step, keeper=keeper
            )

        rows = self._recorded("curvature_eigenvalue", largest_of, _eigenvalues)
        return [float(row["value"].to_numpy()[0]) for row in rows]

    def traces(self) -> list[float]:
        """Records the trace of each point; them, by point."""
        spec = self._spec

        def trace_of(part: slice) -> tuple[Trace, Array]:
            on_probe, keeper = partial(self._tell, part, spec.probes, spec.steps), self._keeper("trace", part)
            hessian = self._hessian(part)
            found = trace(hessian, probes=spec.probes, seed=spec.seed, on_probe=on_probe, keeper=keeper)
            return found, hessian.free.sum(1).cpu().numpy()

        rows = self._recorded("curvature_trace", trace_of, _trace)
        return [float(row["trace"].to_numpy()[0]) for row in rows]

    def _recorded(
        self, table: str, find: Callable[[slice], T], columns: Callable[[T, int], dict[str, Column]]
    ) -> Iterator[pa.RecordBatch]:
        """A batch of rows for each point."""

        def rows(point: Point, found: Callable[[], T], place: int) -> dict[str, Column]:
            own = columns(found(), place)
            many = len(next(iter(own.values())))
            return own | {"place": [point.place] * many, "number": np.full(many, point.number, np.int32)}

        for part in self._parts():
            found = cache(partial(find, part))
            for place, point in enumerate(self.points[part]):
                yield self._job.once(table, partial(rows, point, found, place))

    def _parts(self) -> Iterator[slice]:
        """Points whose vectors, and images where those are never cut, fit into memory together."""
        trained, device = self._trained, self._trained.device.type
        numbers = (self._spec.steps + 4) * sum(p[0].numel() for p in trained.parameters.values())
        images = joined(trained.network, len(self._images.splits[self._spec.split]), self._images.graph)
        at_once = max(1, min(NUMBERS[device] // numbers, ROWS[device] // images))
        for first in range(0, len(self.points), at_once):
            yield slice(first, min(first + at_once, len(self.points)))

    def _keeper(self, what: str, part: slice) -> Keeper:
        return self.checkpoint.part(f"{what}-{part.start}-{part.stop}")

    def _tell(self, part: slice, products: int, before: int, done: int) -> None:
        """Reports how many products with Hessians are done, as parts of points."""
        spec, points = self._spec, self.points
        first, more = points[part.start], part.stop - part.start - 1
        finished = before * len(points) + part.start * products + (more + 1) * done
        note = f"{first.place} {first.number}{f' and {more} more' if more else ''}"
        self._job.progress(finished / (spec.steps + spec.probes), len(points), note)
        self._job.pause_point()

    def _hessian(self, part: slice) -> Hessian:
        """Of the loss at some points."""
        at, weights = self._at(self.points[part])
        images = self._images.splits[self._spec.split]
        return Hessian(
            at.network,
            weights,
            at.buffers,
            self._images.normalise(images.images),
            images.labels,
            trainable=at.asymmetry.trainable if at.asymmetry else None,
            stacked_buffers=at.stacked,
            on_batch=self._job.pause_point,
            graph=self._images.graph,
        )

    def _at(self, points: list[Point]) -> tuple[Population, Parameters]:
        """The first ends with their masks and buffers, and the weights of each point, [point, *shape]."""
        each = [self._weights(point) for point in points]
        weights = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        return self._trained.select([point.ends[0] for point in points]), weights

    def _weights(self, point: Point) -> Parameters:
        """The weights of one point, [1, *shape]."""
        if point.place == "network":
            return self._trained.select([point.number]).effective()
        pair = self._spec.pairs.index(point.ends)
        own = [of_pairs(slice(pair, pair + 1), control) for control in self._controls]
        return bezier(own, np.array([point.alpha]))


def _controls(spec: Spec, trained: Population, job: Job) -> list[Parameters]:
    """Control points of all pairs' paths from one end to the other, [pair, *shape]; none without pairs."""
    if not spec.pairs:
        return []
    a, b = (trained.select(list(members)).effective() for members in zip(*spec.pairs, strict=True))
    return [a, *(bends(spec.curve, job) if spec.curve else ()), aligned(b, spec.alignment, trained, job)]


def _eigenvalues(found: Eigenvalues, place: int) -> dict[str, Column]:
    """Columns of the eigenvalues of one of some points."""
    values = found.values[place]
    rank = np.arange(len(values), dtype=np.int32)
    return {"rank": rank, "value": values, "residual": found.residuals[place]}


def _trace(found: tuple[Trace, Array], place: int) -> dict[str, Column]:
    """Columns of the trace of one of some points, with how many parameters are trained there."""
    traces, free = found
    one = slice(place, place + 1)
    return {"trace": traces.mean[one], "error": traces.error[one], "parameters": free[one].astype(np.int64)}
