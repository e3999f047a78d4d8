"""The curvature kind: the Hessian's largest eigenvalues and its trace at trained networks and midway between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from jobs.designs import check_separate_images, field_error, size
from jobs.estimates import Estimate
from jobs.inputs import dataset, population
from jobs.job import Job
from jobs.kinds.align import check_data, trained_source
from jobs.kinds.interpolate import Split
from jobs.kinds.members import Members, check_gates, check_members
from jobs.kinds.surface import Images, evaluated
from jobs.kinds.train import Seed
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import DataRunSpec, Member, RunSpec, SpecHash
from symcore.asymmetry import Parameters
from symcore.landscape.curvature import Hessian, largest, trace
from symcore.landscape.surfaces import subset
from symcore.metrics import ROWS, rows_at_once
from symcore.population import Population
from symcore.precision import Precision, arithmetic

Place = Literal["network", "midpoint"]
NUMBERS = {"cpu": 2**27, "cuda": 2**31}
"""Numbers in the vectors of Lanczos' method at most; networks beyond are taken after one another."""


class Spec(DataRunSpec):
    """Curvature of the loss at trained networks, and at the midpoints of pairs of them."""

    kind: Literal["curvature"] = "curvature"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks are looked at."""
    members: Members
    """Which of its networks."""
    pairs: tuple[tuple[Member, Member], ...] = ()
    """Pairs (a, b) of members whose midpoints are looked at too."""
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
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run."""
        return (self.source,)


WHERE = [
    pa.field("place", pa.string(), nullable=False),  # "network" or "midpoint"
    pa.field("number", pa.int32(), nullable=False),  # the member, or the place in the spec's pairs
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
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and that their loss is a sum over images.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(Spec, spec.source, spec.pairs, upstream)
    if source is None:
        return
    check_data(Spec, spec.data, spec.source, source)
    check_members(Spec, spec.members, spec.source, len(source.seeds))
    accepted = "a run that trains other networks"
    check_separate_images(
        Spec, ("source",), source.network, source.data, value=spec.source, accepted=accepted
    )


def title(spec: Spec) -> str:
    """At how many networks and midpoints."""
    networks, midpoints = (
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((len(spec.members), "network"), (len(spec.pairs), "midpoint"))
    )
    return f"Curvature at {networks}{f' and {midpoints}' if spec.pairs else ''} on {spec.data}"


PRODUCT = 6
"""Forward passes that a product of the Hessian with a vector takes: two differentiations, each twice a pass."""


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """A product with the Hessian per step of Lanczos' method and per probe."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one, networks = size(source.network, spec.data), len(spec.members) + len(spec.pairs)
    work = networks * (spec.steps + spec.probes) * evaluated(spec.data, spec.split, spec.images)
    vectors = min(networks * (spec.steps + 1) * one.parameters, NUMBERS["cpu"])
    rows = rows_at_once("cpu", one.largest)
    return Estimate(
        flop=float(PRODUCT * one.forward_flop) * work,
        bytes_memory=4 * (vectors + 6 * networks * one.parameters + 8 * rows * one.activations),
        steps=-(-work // rows),
    )


class Point(NamedTuple):
    """Where the curvature is looked at."""

    place: Place
    number: int
    ends: tuple[int, int]
    """The network twice, or the two whose midpoint it is."""


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Finds eigenvalues and traces, as many points together as memory allows.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
        ValueError: if the networks of a pair have different gates.
    """
    trained = population(spec.source, job)
    check_members(Spec, spec.members, spec.source, trained.size)
    count = evaluated(spec.data, spec.split, spec.images)
    images = subset(dataset(spec, job), spec.split, count, spec.subset_seed)
    part = images.splits[spec.split]
    inputs = images.normalise(part.images)
    points = [Point("network", member, (member, member)) for member in spec.members]
    points += [Point("midpoint", number, pair) for number, pair in enumerate(spec.pairs)]
    for pair in spec.pairs:
        check_gates("pairs", pair, trained)
    found: dict[str, list[float]] = {}
    with arithmetic(spec.precision):
        for chosen in _blocks(points, spec, trained):
            on_batch = _watch(spec, job, points, chosen, count, trained.device.type)
            at, midway = _at(chosen, trained)
            hessian = Hessian(
                at.network,
                midway,
                at.buffers,
                inputs,
                part.labels,
                trainable=at.asymmetry.trainable if at.asymmetry else None,
                stacked_buffers=at.stacked,
                on_batch=on_batch,
            )
            for name, values in _measure(spec, job, hessian, chosen).items():
                found.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _blocks(points: list[Point], spec: Spec, trained: Population) -> Iterator[list[Point]]:
    """Points whose vectors fit into memory together."""
    parameters = sum(p[0].numel() for p in trained.parameters.values())
    at_once = max(1, NUMBERS[trained.device.type] // ((spec.steps + 4) * parameters))
    for first in range(0, len(points), at_once):
        yield points[first : first + at_once]


def _at(points: list[Point], trained: Population) -> tuple[Population, Parameters]:
    """The first ends with their masks and buffers, and the weights of each point, [point, *shape]."""
    firsts, seconds = (list(members) for members in zip(*(point.ends for point in points), strict=True))
    first, second = trained.select(firsts), trained.select(seconds).effective()
    return first, {name: (w + second[name]) / 2 for name, w in first.effective().items()}


def _watch(
    spec: Spec, job: Job, points: list[Point], chosen: list[Point], images: int, device: str
) -> Callable[[], None]:
    """What reports each batch of images, and stops where that is asked for."""
    batches = -(-images // max(1, ROWS[device] // len(chosen)))
    share = len(chosen) / (batches * (spec.steps + spec.probes))
    done = float(points.index(chosen[0]))

    def on_batch() -> None:
        nonlocal done
        job.progress(done, len(points), f"{chosen[0].place} {chosen[0].number} and {len(chosen) - 1} more")
        job.pause_point()
        done += share

    return on_batch


def _measure(spec: Spec, job: Job, hessian: Hessian, points: list[Point]) -> dict[str, list[float]]:
    """Records eigenvalues and traces; what they are at each kind of place."""
    values = largest(hessian, spec.eigenvalues, steps=spec.steps, seed=spec.seed)
    traces = trace(hessian, probes=spec.probes, seed=spec.seed)
    number = np.array([point.number for point in points], dtype=np.int32)
    places, many = [point.place for point in points], values.values.shape[1]
    job.emit(
        "curvature_eigenvalue",
        place=[place for place in places for _ in range(many)],
        number=np.repeat(number, many),
        rank=np.tile(np.arange(many, dtype=np.int32), len(points)),
        value=values.values.ravel(),
        residual=values.residuals.ravel(),
    )
    job.emit(
        "curvature_trace",
        place=places,
        number=number,
        trace=traces.mean,
        error=traces.error,
        parameters=hessian.free.sum(1).long().cpu().numpy(),
    )
    found: dict[str, list[float]] = {}
    for place, top, mean in zip(places, values.values[:, 0], traces.mean, strict=True):
        found.setdefault(f"{place}/largest eigenvalue", []).append(float(top))
        found.setdefault(f"{place}/trace", []).append(float(mean))
    return found
