"""The interpolate kind: loss and accuracy along the straight line between the two networks of each pair."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field
from torch import nn

from jobs.designs import rows_together, size
from jobs.estimates import Estimate
from jobs.inputs import dataset
from jobs.job import Job
from jobs.kinds.ends import (
    PairsSpec,
    by_pair,
    check_ends,
    ends,
    of_pairs,
    of_points,
    on_split,
    parts,
    steps,
)
from jobs.kinds.train import Spec as TrainSpec
from jobs.records import Column
from jobs.specs import RunSpec, SpecHash, refusal
from jobs.summaries import each_once, of_networks
from symcore.align import repair
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES, Dataset
from symcore.landscape.paths import PATHS_AT_ONCE, PathPoints, alphas, fit_temperatures, linear_path
from symcore.landscape.surfaces import subset
from symcore.metrics import Array, Evaluator, barrier_maximum, barrier_midpoint
from symcore.population import Population
from symcore.precision import Precision, arithmetic

Split = Literal["train", "test"]


def _odd(points: int) -> int:
    if points % 2 == 0:
        msg = f"{points} is even, so that no point lies halfway; accepted: an odd number from 3"
        raise refusal(msg)
    return points


def _once(splits: tuple[Split, ...]) -> tuple[Split, ...]:
    if len(set(splits)) != len(splits):
        msg = f"{list(splits)} holds a split twice; accepted: each split once"
        raise refusal(msg)
    return splits


Points = Annotated[int, Field(ge=3, le=1001), AfterValidator(_odd)]
"""Number of evenly spaced points on a path; odd, because the barrier is read at the middle."""
Splits = Annotated[tuple[Split, ...], Field(min_length=1), AfterValidator(_once)]


class Spec(PairsSpec):
    """Linear paths between pairs of one trained population (Lim et al. 2024, section 4.1)."""

    kind: Literal["interpolate"] = "interpolate"
    version: Literal[1] = 1
    points: Points = 25
    """Points on each path, endpoints included; odd."""
    splits: Splits = ("train", "test")
    """Parts of the data set that every point is evaluated on."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""
    repair: bool = Field(default=False, exclude_if=operator.not_)
    """Scale and shift what hidden maps put out at each point, so that its mean and spread over training images are those on the line between the ends' (REPAIR, Jordan et al. 2023)."""
    repair_images: int = Field(default=2_000, ge=2, le=100_000, exclude_if=lambda n: n == 2_000)
    """Training images over which REPAIR takes mean and spread, all at once; of a smaller data set all, of a graph all nodes."""
    temperature: bool = Field(default=False, exclude_if=operator.not_)
    """Also record the loss at each point's best softmax temperature, fitted on val images; where there are none, of images at even places in a split at the temperature of test images at odd places, and the other way round."""


TABLES = {
    "path_point": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field("alpha", pa.float64(), nullable=False),  # 0 at a, 1 at b
            pa.field("split", pa.string(), nullable=False),
            pa.field("loss", pa.float64(), nullable=False),  # mean cross-entropy, nats
            pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
        ]
    ),
    "path_calibrated": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),
            pa.field("alpha", pa.float64(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field(
                "temperature", pa.float64(), nullable=False
            ),  # what logits are divided by; of two, for even and odd places, the geometric mean
            pa.field("loss", pa.float64(), nullable=False),  # at that temperature, nats
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and are aligned pair by pair; see `check_ends`."""
    check_ends(spec, upstream)


def title(spec: Spec) -> str:
    """How many paths of how many points."""
    aligned = " aligned" if spec.alignment else ""
    repaired = " repaired" if spec.repair else ""
    paths = "path" if len(spec.pairs) == 1 else "paths"
    return f"Evaluate {len(spec.pairs)}{aligned}{repaired} {paths} of {spec.points} points on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per point and image, those of REPAIR and of temperatures among them."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    data = SOURCES[spec.data]
    images = sum(data.rows(split) for split in spec.splits)
    repairing = (data.nodes or min(spec.repair_images, data.rows("train"))) if spec.repair else 0
    images += repairing
    images += data.rows(calibrated_on(spec.data)) if spec.temperature else 0
    networks = len(spec.pairs) * spec.points
    at_once, rows = min(networks, PATHS_AT_ONCE["cpu"]), rows_together(source.network, spec.data)
    return Estimate(
        flop=float(one.forward_flop) * networks * images,
        bytes_memory=4 * (2 * at_once * one.parameters + 4 * max(rows, repairing) * one.activations),
        steps=-(-networks * images // rows),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates every point of every path on every split.

    Raises:
        StoppedError: if the job was asked to stop; it goes on with the pairs that are not recorded.
    """
    images = dataset(spec, job)
    first, a, b = ends(spec, job)
    begin = steps(job, len(spec.pairs), _order(spec))
    with arithmetic(spec.precision):
        network, corrections = _repaired(spec, first, (a, b), images, begin)
        evaluator = Evaluator(
            network,
            images,
            stacked_buffers=first.stacked,
            # interleaved maps have no corrections
            in_bfloat16=spec.precision == "bfloat16" and not spec.repair,
            on_chunk=job.pause_point,
        )
        sharpness = _sharpness(spec, evaluator, first, (a, b), corrections, begin, job)

        def evaluate(split: str, part: slice) -> PathPoints:
            return linear_path(
                evaluator,
                of_pairs(part, a),
                of_pairs(part, b),
                of_pairs(part, first.buffers) if first.stacked else first.buffers,
                split,
                alphas(spec.points),
                corrections=of_pairs(part, corrections),
                sharpness=None if sharpness is None else sharpness[part],
            )

        def recorded(split: str, part: slice) -> PathPoints:
            return _recorded(spec, split, part, partial(evaluate, split, part), sharpness, job)

        paths: dict[str, PathPoints] = {
            split: on_parts(spec, spec.points, partial(recorded, split), begin(on_split(split)))
            for split in spec.splits
        }
    return summary(spec, paths)


Ends = tuple[Parameters, Parameters]
"""Effective weights of the first and of the second networks, [pair, *shape]."""
Begin = Callable[..., Callable[[int], None]]
"""See `jobs.kinds.ends.steps`."""


def _order(spec: Spec) -> list[str]:
    """The steps of the run."""
    return [*["repair"] * spec.repair, *["temperature"] * spec.temperature, *map(on_split, spec.splits)]


def _repaired(
    spec: Spec, first: Population, between: Ends, images: Dataset, begin: Begin
) -> tuple[nn.Module, Parameters]:
    """The module to call, and what repairs every point, [pair, alpha, *shape]: nothing, unless that is asked for."""
    if not spec.repair:
        return first.network, {}
    seen = subset(images, "train", spec.repair_images, seed=0)
    x = images.normalise(seen.splits["train"].images)  # of a graph all nodes, whichever count
    corrections = repair.estimate(
        first.network,
        *between,
        first.buffers,
        x,
        alphas(spec.points),
        stacked_buffers=first.stacked,
        graph=images.graph,
        on_points=begin("repair", spec.points),
    )
    return repair.repairable(first.network, x[:2]), corrections


def _sharpness(
    spec: Spec,
    evaluator: Evaluator,
    first: Population,
    between: Ends,
    corrections: Parameters,
    begin: Begin,
    job: Job,
) -> Array | None:
    """Each point's best inverse temperatures, [pair, alpha, fold], where they are asked for."""
    if not spec.temperature:
        return None
    split = calibrated_on(spec.data)
    return fit_temperatures(
        evaluator,
        *between,
        first.buffers,
        split,
        alphas(spec.points),
        begin("temperature"),
        corrections=corrections,
        folds=1 if split == "val" else 2,
        on_step=job.pause_point,
    )


def calibrated_on(data: str) -> Literal["val", "test"]:
    """The split that temperatures are fitted on. On training images, all classified rightly, most have no best one.

    Where it is "test", there are two temperatures, each fitted on images at every second place and used at the others.
    """
    return "val" if "val" in SOURCES[data].sizes else "test"


def on_parts(
    spec: PairsSpec, points: int, recorded: Callable[[slice], PathPoints], on_pairs: Callable[[int], None]
) -> PathPoints:
    """All paths, some pairs after others; reports how many are done."""
    found = []
    for part in parts(spec, points):
        found.append(recorded(part))
        on_pairs(part.stop)
    return PathPoints.join(found)


def record(job: Job, split: str, part: slice, points: int, evaluate: Callable[[], PathPoints]) -> PathPoints:
    """Some pairs' rows of the path_point table: as an earlier attempt recorded them, or evaluated and recorded now."""

    def columns() -> dict[str, Column]:
        found = evaluate()
        values = of_points(part, {"loss": found.loss, "accuracy": found.accuracy})
        return values | {"split": [split] * found.loss.size}

    rows = job.once("path_point", columns)
    return PathPoints(by_pair(rows, "loss", points), by_pair(rows, "accuracy", points))


def _recorded(
    spec: Spec,
    split: str,
    part: slice,
    evaluate: Callable[[], PathPoints],
    sharpness: Array | None,
    job: Job,
) -> PathPoints:
    """What `record` gives, and where there are temperatures the loss at each point's, which is recorded likewise."""
    evaluated = cache(evaluate)
    found = record(job, split, part, spec.points, evaluated)
    if sharpness is None:
        return found

    def columns() -> dict[str, Column]:
        losses = evaluated().calibrated
        assert losses is not None
        # of two temperatures, one for each half of the images, the geometric mean
        temperature = np.exp(-np.log(sharpness[part]).mean(-1))
        values = of_points(part, {"temperature": temperature, "loss": losses})
        return values | {"split": [split] * losses.size}

    return replace(found, calibrated=by_pair(job.once("path_calibrated", columns), "loss", spec.points))


def summary(spec: PairsSpec, paths: Mapping[str, PathPoints]) -> dict[str, float]:
    """Loss and accuracy of the networks, and barriers in loss as means over pairs."""
    found: dict[str, float] = {}
    members = [member for pair in spec.pairs for member in pair]
    for split, path in paths.items():
        ends = (each_once(members, v[:, [0, -1]].ravel()) for v in (path.loss, path.accuracy))
        found |= of_networks(split, "of the networks", *ends)
        positions = alphas(path.loss.shape[1])
        found[f"{split}/barrier at midpoint"] = float(barrier_midpoint(path.loss).mean())
        found[f"{split}/barrier maximum"] = float(barrier_maximum(path.loss, positions).mean())
        if path.calibrated is not None:
            found[f"{split}/calibrated barrier at midpoint"] = float(barrier_midpoint(path.calibrated).mean())
    return found
