"""The interpolate kind: loss and accuracy along the straight line between the two networks of each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field

from jobs.designs import size
from jobs.estimates import Estimate
from jobs.inputs import dataset
from jobs.job import Job
from jobs.kinds.ends import PairsSpec, check_ends, ends, watch
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import RunSpec, SpecHash, refusal
from symcore.data.sources import SOURCES
from symcore.landscape.paths import PATHS_AT_ONCE, PathPoints, alphas, linear_path
from symcore.metrics import Evaluator, barrier_maximum, barrier_midpoint, rows_at_once
from symcore.training import Precision, arithmetic

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


TABLES = {
    "path_point": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field("alpha", pa.float64(), nullable=False),  # 0 at a, 1 at b
            pa.field("split", pa.string(), nullable=False),
            pa.field("loss", pa.float64(), nullable=False),  # mean cross-entropy, nats
            pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
        ]
    )
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and are aligned pair by pair; see `check_ends`."""
    check_ends(spec, upstream)


def title(spec: Spec) -> str:
    """How many paths of how many points."""
    aligned = " aligned" if spec.alignment else ""
    return f"Evaluate {len(spec.pairs)}{aligned} paths of {spec.points} points on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per point and image."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    images = sum(SOURCES[spec.data].rows(split) for split in spec.splits)
    networks = len(spec.pairs) * spec.points
    at_once, rows = min(networks, PATHS_AT_ONCE["cpu"]), rows_at_once("cpu", one.largest)
    return Estimate(
        flop=float(one.forward_flop) * networks * images,
        bytes_memory=4 * (2 * at_once * one.parameters + 4 * rows * one.activations),
        steps=-(-networks * images // rows),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates every point of every path on every split.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
    """
    images = dataset(spec, job)
    first, a, b = ends(spec, job)
    evaluator = Evaluator(
        first.network,
        images,
        stacked_buffers=first.stacked,
        in_bfloat16=spec.precision == "bfloat16",
        on_chunk=job.pause_point,
    )
    positions = alphas(spec.points)
    paths: dict[str, PathPoints] = {}
    with arithmetic(spec.precision):
        for index, split in enumerate(spec.splits):
            on_pairs = watch(job, len(spec.pairs), spec.splits, index)
            on_pairs(0)
            paths[split] = linear_path(evaluator, a, b, first.buffers, split, positions, on_pairs)
    for name, path in paths.items():
        record(job, name, path)
    return summary(paths)


def record(job: Job, split: str, path: PathPoints) -> None:
    """One batch of the path_point table: every point of every pair's path on one split."""
    pairs, points = path.loss.shape
    job.emit(
        "path_point",
        pair=np.repeat(np.arange(pairs, dtype=np.int16), points),
        alpha=np.tile(alphas(points), pairs),
        split=[split] * (pairs * points),
        loss=path.loss.ravel(),
        accuracy=path.accuracy.ravel(),
    )


def summary(paths: Mapping[str, PathPoints]) -> dict[str, float]:
    """Barriers in loss as means over pairs."""
    found = {}
    for split, path in paths.items():
        positions = alphas(path.loss.shape[1])
        found[f"{split}/barrier at midpoint"] = float(barrier_midpoint(path.loss).mean())
        found[f"{split}/barrier maximum"] = float(barrier_maximum(path.loss, positions).mean())
    return found
