"""The interpolate kind: loss and accuracy along the straight line between the two networks of each pair."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from jobs.designs import field_error, size
from jobs.estimates import Estimate
from jobs.inputs import aligned, check_members, dataset, population
from jobs.job import Job
from jobs.kinds.align import check_alignment, check_data, trained_source
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import DataRunSpec, Pairs, RunSpec, SpecHash, refusal
from symcore.align import repair
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES
from symcore.landscape.paths import PATHS_AT_ONCE, PathPoints, alphas, fit_temperatures, linear_path
from symcore.landscape.surfaces import subset
from symcore.metrics import Array, Evaluator, barrier_maximum, barrier_midpoint, rows_at_once
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


class Spec(DataRunSpec):
    """Linear paths between pairs of one trained population (Lim et al. 2024, section 4.1)."""

    kind: Literal["interpolate"] = "interpolate"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks are the endpoints."""
    alignment: SpecHash | None = None
    """The align run whose permutations are applied to the second networks; none: they are taken as they are."""
    pairs: Pairs
    """Members (a, b) of each pair: the path goes from a to b."""
    points: Points = 25
    """Points on each path, endpoints included; odd."""
    splits: Annotated[tuple[Split, ...], Field(min_length=1), AfterValidator(_once)] = ("train", "test")
    """Parts of the data set that every point is evaluated on."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""
    repair: bool = Field(default=False, exclude_if=operator.not_)
    """Scale and shift what hidden maps put out at each point, so that its mean and spread over training images are those on the line between the ends' (REPAIR, Jordan et al. 2023)."""
    repair_images: int = Field(default=2_000, ge=2, le=100_000, exclude_if=lambda n: n == 2_000)
    """Training images over which REPAIR takes mean and spread, all at once; of a smaller data set all."""
    temperature: bool = Field(default=False, exclude_if=operator.not_)
    """Also record the loss at each point's best softmax temperature, fitted on val images; where there are none, on the other half of the test images."""

    @model_validator(mode="after")
    def _repairs_images(self) -> Self:
        if self.repair and SOURCES[self.data].nodes:
            msg = f"true, and {self.data} is a graph; accepted: false, or a data set of images"
            raise field_error(Spec, ("repair",), self.repair, msg)
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run if there is one."""
        return (self.source,) if self.alignment is None else (self.source, self.alignment)


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
            pa.field("temperature", pa.float64(), nullable=False),  # what logits are divided by
            pa.field("loss", pa.float64(), nullable=False),  # at that temperature, nats
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the runs which are read fit: the networks exist, on this data, and are aligned pair by pair.

    Args:
        spec: the run.
        upstream: specs of the runs that it reads, as far as they are known.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = trained_source(Spec, spec.source, spec.pairs, upstream)
    if source is not None:
        check_data(Spec, spec.data, spec.source, source)
    check_alignment(Spec, spec.alignment, spec.source, spec.pairs, upstream)


def title(spec: Spec) -> str:
    """How many paths of how many points."""
    aligned = " aligned" if spec.alignment else ""
    repaired = " repaired" if spec.repair else ""
    return f"Evaluate {len(spec.pairs)}{aligned}{repaired} paths of {spec.points} points on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per point and image, those of REPAIR and of temperatures among them."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    data = SOURCES[spec.data]
    images = sum(data.rows(split) for split in spec.splits)
    repairing = min(spec.repair_images, data.rows("train")) if spec.repair else 0
    images += repairing
    images += data.rows(_calibrating(spec)) if spec.temperature else 0
    networks = len(spec.pairs) * spec.points
    at_once, rows = min(networks, PATHS_AT_ONCE["cpu"]), rows_at_once("cpu", one.largest)
    return Estimate(
        flop=float(one.forward_flop) * networks * images,
        bytes_memory=4 * (2 * at_once * one.parameters + 4 * max(rows, repairing) * one.activations),
        steps=-(-networks * images // rows),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates every point of every path on every split.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
    """
    images = dataset(spec, job)
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)
    _check_buffers(spec, trained)
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    effective = trained.effective()
    a = {name: p[firsts] for name, p in effective.items()}
    b = aligned({name: p[seconds] for name, p in effective.items()}, spec.alignment, trained, job)
    buffers = {name: v[firsts] if trained.stacked else v for name, v in trained.buffers.items()}
    positions, steps = alphas(spec.points), _steps(spec, job)
    network, corrections = trained.network, Parameters()
    with arithmetic(spec.precision):
        if spec.repair:
            seen = subset(images, "train", spec.repair_images, seed=0)
            x = images.normalise(seen.splits["train"].images)
            on_points, stacked = steps("repair", spec.points), trained.stacked
            corrections = repair.estimate(
                network, a, b, buffers, x, positions, stacked_buffers=stacked, on_points=on_points
            )
            network = repair.repairable(network, x[:2])
        evaluator = Evaluator(
            network,
            images,
            stacked_buffers=trained.stacked,
            in_bfloat16=spec.precision == "bfloat16"
            and not spec.repair,  # interleaved maps have no corrections
            on_chunk=job.pause_point,
        )
        sharpness = None
        if spec.temperature:
            split = _calibrating(spec)
            on_pairs, folds = steps("temperature"), 1 if split == "val" else 2
            sharpness = fit_temperatures(
                evaluator, a, b, buffers, split, positions, on_pairs, corrections=corrections, folds=folds,
                on_step=job.pause_point,
            )  # fmt: skip
        paths: dict[str, PathPoints] = {
            split: linear_path(
                evaluator,
                a,
                b,
                buffers,
                split,
                positions,
                steps(split),
                corrections=corrections,
                sharpness=sharpness,
            )
            for split in spec.splits
        }
    for name, path in paths.items():
        _record(job, name, path, spec.points)
        _record_calibrated(job, name, path, sharpness)
    return _summary(paths)


def _calibrating(spec: Spec) -> str:
    """The split that temperatures are fitted on. On training images, all classified rightly, most have no best one."""
    return "val" if "val" in SOURCES[spec.data].sizes else "test"


def _steps(spec: Spec, job: Job) -> Callable[..., Callable[[int], None]]:
    """Begins one step of the run after another; each reports how many pairs it has done and stops where asked to."""
    order = [*["repair"] * spec.repair, *["temperature"] * spec.temperature, *spec.splits]
    pairs = len(spec.pairs)

    def begin(step: str, parts: int = 1) -> Callable[[int], None]:
        def on_parts(done: int) -> None:
            note = f"{step} split" if step in spec.splits else step
            job.progress(order.index(step) * pairs + done / parts, len(order) * pairs, note)
            job.pause_point()

        on_parts(0)
        return on_parts

    return begin


def _check_buffers(spec: Spec, trained: Population) -> None:
    """A path needs one module: networks with other FiGLU gates are not joined by a line of parameters.

    Raises:
        ValueError: naming the first pair whose networks differ in what is not trained.
    """
    seeds = trained.design.mask_seeds
    for a, b in spec.pairs:
        if len(seeds) > 1 and trained.buffers and seeds[a] != seeds[b]:
            msg = f"pairs: {[a, b]} have different gates (mask seeds {seeds[a]} and {seeds[b]}); accepted: equal ones"
            raise ValueError(msg)


def _record(job: Job, split: str, path: PathPoints, points: int) -> None:
    pairs = len(path.loss)
    job.emit(
        "path_point",
        pair=np.repeat(np.arange(pairs, dtype=np.int16), points),
        alpha=np.tile(alphas(points), pairs),
        split=[split] * (pairs * points),
        loss=path.loss.ravel(),
        accuracy=path.accuracy.ravel(),
    )


def _record_calibrated(job: Job, split: str, path: PathPoints, sharpness: Array | None) -> None:
    """The loss at each point's temperature; of two temperatures, one for each half of the images, the geometric mean."""
    if path.calibrated is None or sharpness is None:
        return
    pairs, points = path.calibrated.shape
    job.emit(
        "path_calibrated",
        pair=np.repeat(np.arange(pairs, dtype=np.int16), points),
        alpha=np.tile(alphas(points), pairs),
        split=[split] * path.calibrated.size,
        temperature=np.exp(-np.log(sharpness).mean(-1)).ravel(),
        loss=path.calibrated.ravel(),
    )


def _summary(paths: Mapping[str, PathPoints]) -> dict[str, float]:
    """Barriers in loss as means over pairs."""
    summary = {}
    for split, path in paths.items():
        positions = alphas(path.loss.shape[1])
        summary[f"{split}/barrier at midpoint"] = float(barrier_midpoint(path.loss).mean())
        summary[f"{split}/barrier maximum"] = float(barrier_maximum(path.loss, positions).mean())
        if path.calibrated is not None:
            summary[f"{split}/calibrated barrier at midpoint"] = float(
                barrier_midpoint(path.calibrated).mean()
            )
    return summary
