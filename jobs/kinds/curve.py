"""The curve kind: a Bezier curve of low loss between the two networks of each pair, its bends trained, then evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import pyarrow as pa
from pydantic import Field
from safetensors.torch import load_file, save_file

from jobs.designs import size
from jobs.estimates import Estimate
from jobs.fitting import checkpoint, train
from jobs.inputs import dataset
from jobs.job import Job
from jobs.kinds.ends import PairsSpec, check_ends, ends, of_pairs, on_split, steps
from jobs.kinds.interpolate import Points, Splits, on_parts, record, summary
from jobs.kinds.train import Epochs
from jobs.kinds.train import Spec as TrainSpec
from jobs.populations import Seed
from jobs.specs import RunSpec, SpecHash
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES, Dataset
from symcore.landscape.curves import CurveTrainer, curve_path
from symcore.landscape.paths import PathPoints, alphas
from symcore.metrics import Evaluator
from symcore.precision import Precision, arithmetic
from symcore.training import TrainingSpec


class Spec(PairsSpec):
    """Curves of low loss between pairs of one trained population (Garipov et al. 2018)."""

    kind: Literal["curve"] = "curve"
    version: Literal[1] = 1
    bends: int = Field(default=1, ge=1, le=8)
    """Control points between the two networks; 1 makes a quadratic curve."""
    training: TrainingSpec
    """How bends are trained: each minibatch at a point of the curve that is drawn uniformly."""
    seed: Seed = 0
    """Seeds positions and minibatches of the first pair; those of each next pair count one up."""
    points: Points = 25
    """Points on each curve, endpoints included; odd."""
    splits: Splits = ("train", "test")
    """Parts of the data set that every point is evaluated on."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""


TABLES: dict[str, pa.Schema] = {}  # points go to path_point, beside those of straight paths
BENDS = "bends.safetensors"
"""The file in the run's folder that holds the bends: "1/hidden.0.linear.weight" and so on, [pair, *shape]."""


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and are aligned pair by pair; see `check_ends`."""
    check_ends(spec, upstream)


def title(spec: Spec) -> str:
    """How many curves with how many bends."""
    aligned = " aligned" if spec.alignment else ""
    bends = f"{spec.bends} bend{'s' if spec.bends > 1 else ''}"
    curves = "curve" if len(spec.pairs) == 1 else "curves"
    return f"Train {len(spec.pairs)}{aligned} Bezier {curves} with {bends} on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """What training the pairs as networks costs, but for a state per bend, and one forward pass per point and image, or node."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one, pairs, epochs = size(source.network, spec.data), len(spec.pairs), Epochs.of(spec.data, spec.training)
    evaluated = spec.points * sum(SOURCES[spec.data].rows(split) for split in spec.splits)
    copies = (
        4 + 5 * spec.bends
    )  # ends, point and gradient; of a bend weights, gradient, two moments and a temporary
    return Estimate(
        flop=float(one.forward_flop) * pairs * (epochs.passes + evaluated),
        bytes_memory=4 * pairs * (copies * one.parameters + 4 * epochs.batch * one.activations),
        steps=epochs.steps,
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Trains the bends, keeps them, and evaluates every point of every curve on every split.

    Raises:
        StoppedError: if the job was asked to stop; a checkpoint of the bends is in its folder, and when they are
            trained it goes on with the pairs that are not recorded.
    """
    images = dataset(spec, job)
    trainer = _fit(spec, images, job)
    path = job.folder / BENDS
    partial = path.with_suffix(".partial")
    save_file({name: w.contiguous() for name, w in trainer.weights.items()}, partial)
    partial.replace(path)
    job.artifact(path, "bends")
    found = _evaluate(spec, trainer, images, job)
    checkpoint(job).unlink(missing_ok=True)
    return summary(spec, found)


def bends(curve: SpecHash, job: Job) -> list[Parameters]:
    """The control points between the ends that an upstream curve run trained, in order along the curve, [pair, *shape].

    Raises:
        LookupError: if that run is not among the job's inputs.
    """
    found: dict[int, Parameters] = {}
    for name, weights in load_file(job.input(curve) / BENDS, device=str(job.device)).items():
        bend, _, own = name.partition("/")
        found.setdefault(int(bend), {})[own] = weights
    return [found[bend] for bend in sorted(found)]


def _fit(spec: Spec, images: Dataset, job: Job) -> CurveTrainer:
    """The bends trained to the end, or on from a checkpoint."""
    first, a, b = ends(spec, job)
    seeds = tuple(spec.seed + pair for pair in range(len(spec.pairs)))
    first = replace(first, design=replace(first.design, seeds=seeds))

    def begin() -> CurveTrainer:
        return CurveTrainer((a, b), first, images, spec.training, spec.bends, spec.precision)

    return train(begin, job)


def _evaluate(spec: Spec, trainer: CurveTrainer, images: Dataset, job: Job) -> dict[str, PathPoints]:
    first = trainer.population
    evaluator = Evaluator(
        first.network,
        images,
        stacked_buffers=first.stacked,
        in_bfloat16=spec.precision == "bfloat16",
        on_chunk=job.pause_point,
    )
    begin = steps(job, len(spec.pairs), [on_split(split) for split in spec.splits])
    controls = trainer.controls()

    def evaluate(split: str, part: slice) -> PathPoints:
        own = of_pairs(part, first.buffers) if first.stacked else first.buffers
        some = [of_pairs(part, control) for control in controls]
        return curve_path(evaluator, some, own, split, alphas(spec.points))

    def recorded(split: str, part: slice) -> PathPoints:
        return record(job, split, part, spec.points, partial(evaluate, split, part))

    with arithmetic(spec.precision):
        return {
            split: on_parts(spec, spec.points, partial(recorded, split), begin(on_split(split)))
            for split in spec.splits
        }
