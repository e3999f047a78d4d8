"""The valley kind: slices of the loss through trained networks, and through the average of a training run's end."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Annotated, Literal, NamedTuple, Self, get_args

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.designs import blueprint, field_error, rows_together, size
from jobs.estimates import Estimate
from jobs.inputs import aligned, average, dataset, population
from jobs.job import Job
from jobs.kinds.align import check_alignment, check_data, trained_source
from jobs.kinds.ends import of_pairs
from jobs.kinds.interpolate import Points, Splits
from jobs.kinds.members import (
    Members,
    check_finite,
    check_gates,
    check_members,
    single,
    summarised,
    trainable,
)
from jobs.kinds.surface import Images, evaluated, rows
from jobs.kinds.train import Spec as TrainSpec
from jobs.kinds.train import differences
from jobs.populations import Seed
from jobs.records import Column
from jobs.specs import DataRunSpec, Pairs, RunSpec, SpecHash, in_order
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES, Dataset
from symcore.landscape.surfaces import subset
from symcore.landscape.valleys import (
    Kind,
    direction,
    gradient_noise,
    length,
    norm_parameters,
    toward,
    unit,
)
from symcore.metrics import Array, Evaluator
from symcore.networks.registry import NetworkSpec
from symcore.population import Population
from symcore.precision import Precision, arithmetic
from symcore.settings import Settings

Direction = Literal["gaussian", "uniform", "sign", "noise", "between", "average", "norms", "others"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
ANYWHERE: tuple[Direction, ...] = ("gaussian", "uniform", "sign", "noise", "between")
"""Directions that networks have which were trained on images."""
PARTS: tuple[Direction, ...] = ("norms", "others")
"""Directions that move only the parameters of norms, or all but them (He, Huang and Yuan 2019)."""
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)} | dict.fromkeys(PARTS, "uniform")
"""How the entries of random directions are drawn."""
DRAWN = (*KINDS, "noise")
"""Directions of which any number can be drawn, in lengths of the weights that they move; the others lead to a network."""


class Spec(DataRunSpec):
    """One-dimensional slices of the loss through trained networks (He, Huang and Yuan 2019)."""

    kind: Literal["valley"] = "valley"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks are looked at."""
    alignment: SpecHash | None = Field(default=None, exclude_if=operator.not_)
    """The align run whose permutations are applied to each next network, pairs going round the members; none: they are taken as they are."""
    members: Members
    """Which of its networks."""
    directions: Annotated[tuple[Direction, ...], in_order(DIRECTIONS)] = ANYWHERE
    """Normal; uniform in [0, 1]; |normal| with each weight's sign; SGD's noise; to the next network; from a weight average to the end of training; uniform, of norms' parameters only; of all others."""
    draws: int = Field(default=3, ge=1, le=1000)
    """Random directions of each kind, and minibatches whose gradients are the noise."""
    batch: int = Field(default=64, ge=1, le=65_536)
    """Images of such a minibatch."""
    averaged: int = Field(default=4, ge=1, le=1000)
    """Snapshots before the end that the weight average is over, beside the end itself."""
    average_of: SpecHash | None = Field(default=None, exclude_if=operator.not_)
    """The train run of the same networks whose snapshots and end these are, say one that source went on from; none: source itself."""
    points: Points = 41
    """Points on each slice; odd."""
    span: float = Field(default=1.0, gt=0, le=100)
    """How far slices along drawn directions reach to both sides, in lengths of the weights that they move."""
    distances: float = Field(default=2.0, gt=0, le=100)
    """How far slices that lead to a network reach to both sides, in distances to it."""
    splits: Splits = ("train", "test")
    """Parts of the data set that every point is evaluated on."""
    images: Images = 2000
    """Images of each that are drawn, the same for every point, as many of each class as can be; 0: all."""
    subset_seed: Seed = 0
    """Seeds which images are drawn."""
    seed: Seed = 0
    """Seeds the directions; each next draw counts one up."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "between" in self.directions and len(self.members) < 2:
            msg = f"{list(self.members)} has no next network; accepted: two or more, or directions without between"
            raise field_error(Spec, ("members",), self.members, msg)
        if self.alignment and "between" not in self.directions:
            msg = f"{self.alignment}, and no direction leads to another network; accepted: none, or directions with between"
            raise field_error(Spec, ("alignment",), self.alignment, msg)
        if self.average_of and "average" not in self.directions:
            msg = f"{self.average_of}, and no direction leads from an average; accepted: none, or directions with average"
            raise field_error(Spec, ("average_of",), self.average_of, msg)
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run and the train run that is averaged if there are any."""
        return tuple(run for run in (self.source, self.alignment, self.average_of) if run)

    @property
    def pairs(self) -> Pairs:
        """Each network and the next, the first after the last."""
        return tuple(zip(self.members, (*self.members[1:], self.members[0]), strict=True))


TABLES = {
    "valley_point": pa.schema(
        [
            pa.field("member", pa.int32(), nullable=False),
            pa.field("direction", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),  # 0 where nothing is drawn
            pa.field("split", pa.string(), nullable=False),
            pa.field("position", pa.float64(), nullable=False),  # 0 at the network, or at the weight average
            pa.field("loss", pa.float64(), nullable=False),  # mean cross-entropy, nats
            pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
        ]
    ),
    "valley_slice": pa.schema(
        [
            pa.field("member", pa.int32(), nullable=False),
            pa.field("direction", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("length", pa.float64(), nullable=False),  # distance between weights from position 0 to 1
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, with the snapshots and the loss that the directions need.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    check_alignment(Spec, spec.alignment, spec.source, spec.pairs, upstream)
    source = trained_source(Spec, spec.source, (), upstream)
    if source is None:
        return
    check_data(Spec, spec.data, spec.source, source)
    check_members(Spec, spec.members, spec.source, len(source.seeds))
    check_directions(Spec, spec.directions, source.network, source.data)
    averaged = _averaged(spec, source, upstream)
    if "average" in spec.directions and averaged is not None and averaged.snapshots < spec.averaged:
        name = "average_of" if spec.average_of else "source"
        msg = f"{spec.averaged}; {name} {spec.average_of or spec.source} keeps {averaged.snapshots} snapshots; accepted: as many or fewer"
        raise field_error(Spec, ("averaged",), spec.averaged, msg)


def _averaged(spec: Spec, source: TrainSpec, upstream: Mapping[SpecHash, RunSpec]) -> TrainSpec | None:
    """The train run whose snapshots are averaged; none if it is not known.

    Raises:
        ValidationError: if it is no train run, or one of other networks.
    """
    if spec.average_of is None:
        return source
    found = upstream.get(spec.average_of)
    if found is None:
        return None
    if not isinstance(found, TrainSpec):
        msg = f"{spec.average_of} is {found.kind}; accepted: the hash of a train run"
        raise field_error(Spec, ("average_of",), spec.average_of, msg)
    if others := differences(found, source):
        msg = f"{spec.average_of} trains other networks than source {spec.source}, by {', '.join(others)}; accepted: a train run of the same"
        raise field_error(Spec, ("average_of",), spec.average_of, msg)
    return found


def check_directions(
    model: type[Settings], directions: tuple[Direction, ...], network: NetworkSpec, data: str
) -> None:
    """Makes sure that the networks have such directions.

    Args:
        model: the model being validated, for the error's title.
        directions: the settings to check.
        network: whose loss is sliced.
        data: name of the data set.

    Raises:
        ValidationError: if a graph's training, whose every step sees all nodes, is asked for noise, or a network without
            norms for directions that tell their parameters from others.
    """
    lacking = {}
    if SOURCES[data].nodes:
        lacking["noise"] = f"each step of training sees all of {data}, so that gradients have no noise"
    if not norm_parameters(blueprint(network, data)):
        lacking |= dict.fromkeys(PARTS, "the network has no norm with parameters")
    for name, reason in lacking.items():
        if name in directions:
            msg = f"{reason}; accepted: directions without {name}"
            raise field_error(model, ("directions",), directions, msg)


def title(spec: Spec) -> str:
    """How many slices through how many networks."""
    networks = f"{len(spec.members)} network{'s' if len(spec.members) > 1 else ''}"
    return f"Evaluate {_slices(spec)} slices through each of {networks} on {spec.data}"


def _slices(spec: Spec) -> int:
    return sum(spec.draws if name in DRAWN else 1 for name in spec.directions)


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per point and image, or node."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    seen = sum(rows(spec.data, split, spec.images) for split in spec.splits)
    work = len(spec.members) * _slices(spec) * spec.points * seen
    at_once = rows_together(source.network, spec.data)
    return Estimate(
        flop=float(one.forward_flop) * work,
        bytes_memory=4 * ((spec.points + 3) * one.parameters + 4 * at_once * one.activations),
        steps=-(-work // at_once),
    )


class Slice(NamedTuple):
    """A line through weights."""

    direction: Direction
    draw: int
    weights: Callable[[], tuple[Parameters, Parameters]]
    """Gives the origin, and the step to position 1; found when it is first needed."""


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates every point of every slice on every split.

    Raises:
        StoppedError: if the job was asked to stop; it goes on with the slices that are not recorded.
        ValueError: if networks have weights that are not finite, or those that a slice joins different gates.
    """
    trained, images = population(spec.source, job), dataset(spec, job)
    check_members(Spec, spec.members, spec.source, trained.size)
    check_finite(spec.members, trained)
    if "between" in spec.directions:
        check_gates("members", spec.members, trained)

    @cache
    def others() -> Parameters:
        seconds = trained.select([second for _, second in spec.pairs]).effective()
        return aligned(seconds, spec.alignment, trained, job)

    @cache
    def averages() -> Parameters:
        return average(spec.average_of or spec.source, spec.members, spec.averaged, job)

    for split in spec.splits:
        images = subset(images, split, evaluated(spec.data, split, spec.images), spec.subset_seed)
    evaluator = Evaluator(trained.network, images, on_chunk=job.pause_point)
    done, total = 0, len(spec.members) * _slices(spec)
    with arithmetic(spec.precision):
        networks = summarised(trained, spec.members, images, spec.splits, job)
        for place, member in enumerate(spec.members):
            one = trained.select([member])
            for line in _lines(spec, place, one, others, averages, images):
                job.progress(done, total, f"network {member}, {line.direction}")
                job.pause_point()
                _record(spec, member, line, evaluator, one.buffers, job)
                done += 1
    job.progress(done, total)
    return networks | {"slices": float(total)}


def _lines(
    spec: Spec,
    place: int,
    one: Population,
    others: Callable[[], Parameters],
    averages: Callable[[], Parameters],
    images: Dataset,
) -> Iterator[Slice]:
    """All slices through the network at a place of the spec's members, given each member's next one and weight average."""
    origin = single(one.effective())

    def between() -> tuple[Parameters, Parameters]:
        return _joining(origin, single(of_pairs(slice(place, place + 1), others())))

    def from_average() -> tuple[Parameters, Parameters]:
        return _joining(single(of_pairs(slice(place, place + 1), averages())), origin)

    def drawn(name: str, draw: int) -> tuple[Parameters, Parameters]:
        free, moved = trainable(one), _moved(name, one)
        reach = length({n: w * free[n] if free and n in free else w for n, w in origin.items() if n in moved})
        return origin, {n: s * reach for n, s in _drawn(spec, name, draw, one, images).items()}

    for name in spec.directions:
        if name == "between":
            yield Slice(name, 0, cache(between))
        elif name == "average":
            yield Slice(name, 0, cache(from_average))
        else:
            for draw in range(spec.draws):
                yield Slice(name, draw, cache(partial(drawn, name, draw)))


def _joining(origin: Parameters, other: Parameters) -> tuple[Parameters, Parameters]:
    """The line from one network (0) to another (1)."""
    unit(toward(origin, other))  # refuses two that are the same
    return origin, {n: other[n] - w for n, w in origin.items()}


def _moved(name: str, one: Population) -> set[str]:
    """Names of the parameters that a drawn direction moves."""
    norms = norm_parameters(one.network)
    return {"norms": norms, "others": set(one.parameters) - norms}.get(name, set(one.parameters))


def _drawn(spec: Spec, name: str, draw: int, one: Population, images: Dataset) -> Parameters:
    """A direction of length 1 through a network."""
    origin, free, seed = single(one.effective()), trainable(one), spec.seed + draw
    if name in KINDS:
        return direction(KINDS[name], origin, seed, free, _moved(name, one))
    train = images.splits["train"]
    inputs, batch = images.normalise(train.images), min(spec.batch, len(train))
    return gradient_noise(
        one.network, origin, one.buffers, inputs, train.labels, batch=batch, seed=seed, trainable=free
    )


def _record(
    spec: Spec, member: int, line: Slice, evaluator: Evaluator, buffers: Mapping[str, Tensor], job: Job
) -> None:
    """Evaluates and records a slice, but for what an earlier attempt recorded."""
    reach = spec.span if line.direction in DRAWN else spec.distances
    positions = np.linspace(-reach, reach, spec.points)

    def same(rows: int) -> dict[str, Column]:
        return {
            "member": np.full(rows, member, dtype=np.int32),
            "direction": [line.direction] * rows,
            "draw": np.full(rows, line.draw, dtype=np.int32),
        }

    def evaluated(split: str) -> dict[str, Column]:
        loss, accuracy = _evaluate(line, positions, evaluator, buffers, split)
        own: dict[str, Column] = {"position": positions, "loss": loss, "accuracy": accuracy}
        return same(spec.points) | own | {"split": [split] * spec.points}

    for split in spec.splits:
        job.once("valley_point", partial(evaluated, split))
    job.once("valley_slice", lambda: {**same(1), "length": [length(line.weights()[1])]})


def _evaluate(
    line: Slice, positions: Array, evaluator: Evaluator, buffers: Mapping[str, Tensor], split: str
) -> tuple[Array, Array]:
    """Loss and accuracy of the networks at some positions of a slice, [point]."""
    origin, step = line.weights()
    few = {name: torch.stack([w, step[name]]) for name, w in origin.items()}
    like = next(iter(few.values()))
    columns = np.stack([np.ones_like(positions), positions], axis=1)
    coefficients = torch.as_tensor(columns, dtype=like.dtype, device=like.device)
    return evaluator.combinations(coefficients, few, buffers, split)
