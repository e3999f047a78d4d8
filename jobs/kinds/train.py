"""The train kind: one population of networks, trained to the end and kept as one file of weights."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator
from safetensors import SafetensorError, safe_open

from jobs.designs import check_treatment, field_error, size
from jobs.estimates import Estimate
from jobs.inputs import WEIGHTS, dataset
from jobs.job import Job, RecordsLostError
from jobs.specs import DataRunSpec, RunSpec, SpecHash
from symcore.data.sources import SOURCES, Dataset
from symcore.metrics import Array, Evaluator
from symcore.networks.registry import NetworkSpec
from symcore.population import Design, Population, build, save
from symcore.precision import Precision, arithmetic
from symcore.settings import is_stored
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import Standard, Treatment

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Spec(DataRunSpec):
    """Networks of one form, trained side by side from their own seeds."""

    kind: Literal["train"] = "train"
    version: Literal[1] = 1
    network: NetworkSpec
    """Form of every network."""
    treatment: Treatment
    """What is done to the networks' symmetries."""
    training: TrainingSpec
    """How they are trained."""
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=10_000)
    """One per network; it seeds initialisation, shuffling and augmentation."""
    mask_seeds: tuple[Seed, ...] = ()
    """Seeds of masks, fixed weights and FiGLU's F: one for all networks or one each; none for standard networks."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""
    # where it is off, the JSON does not have it, so that runs made before it existed keep their hashes
    train_accuracy: bool = Field(default=False, exclude_if=operator.not_)
    """Record the accuracy on all training images after each epoch too; it takes about a quarter more time."""

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            msg = f"seeds: {list(self.seeds)} holds a seed twice; accepted: each seed once"
            raise field_error(Spec, ("seeds",), self.seeds, msg)
        accepted = (0,) if isinstance(self.treatment, Standard) else (1, len(self.seeds))
        if len(self.mask_seeds) not in accepted:
            msg = f"mask_seeds: got {len(self.mask_seeds)}; accepted: {' or '.join(map(str, dict.fromkeys(accepted)))}"
            raise field_error(Spec, ("mask_seeds",), self.mask_seeds, msg)
        if not is_stored(info):
            check_treatment(Spec, ("treatment",), self.network, self.data, self.treatment)
        if SOURCES[self.data].nodes and self.training.augment != "none":
            msg = f"{self.training.augment} changes images, and {self.data} is a graph; accepted: none"
            raise field_error(Spec, ("training", "augment"), self.training.augment, msg)
        return self


TABLES: dict[str, pa.Schema] = {}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """It reads no run, so that all fit."""
    del spec, upstream


def title(spec: Spec) -> str:
    """What is trained, on what."""
    plural = "s" if len(spec.seeds) > 1 else ""
    return f"Train {len(spec.seeds)} {spec.treatment.label} {spec.network.label}{plural} on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Three forward passes' worth of operations per image and epoch, and evaluation after each epoch."""
    del upstream
    one, members, source = size(spec.network, spec.data), len(spec.seeds), SOURCES[spec.data]
    measured = (n for split, n in source.sizes.items() if split != "train" or spec.train_accuracy)
    evaluated = source.nodes or sum(measured)
    batch = source.nodes or spec.training.batch
    copies = 6  # weights, gradient, two moments, mask or rates, and a temporary
    return Estimate(
        flop=float(one.forward_flop)
        * members
        * spec.training.epochs
        * (3 * source.rows("train") + evaluated),
        bytes_memory=4 * members * (copies * one.parameters + 4 * batch * one.activations),
        steps=spec.training.epochs * -(-source.rows("train") // batch),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Trains, records metrics after each epoch, evaluates the end on every split and keeps the weights.

    Raises:
        StoppedError: if the job was asked to stop; a checkpoint is in its folder.
        DataUnavailableError: if the data set's files cannot be had.
    """
    images = dataset(spec, job)
    source = images.source
    design = Design(
        network=spec.network,
        treatment=spec.treatment,
        input_shape=source.input_shape,
        classes=source.classes,
        seeds=spec.seeds,
        mask_seeds=spec.mask_seeds or (0,),
    )
    population = build(design, job.device)
    checkpoint = job.folder / "checkpoint.safetensors"
    _drop_unreadable(checkpoint, job)
    try:
        trained = _fit(population, images, spec, job, checkpoint)
    except RecordsLostError as lost:
        job.log(f"{lost}; training begins again")
        checkpoint.unlink()
        trained = _fit(population, images, spec, job, checkpoint)
    summary = _evaluate(trained, images, spec, job)
    _keep(trained, job.folder / WEIGHTS)
    job.artifact(job.folder / WEIGHTS, "weights")
    checkpoint.unlink(missing_ok=True)
    return summary


def _drop_unreadable(checkpoint: Path, job: Job) -> None:
    """Removes a checkpoint that a dying disk or machine left damaged, so that training begins again."""
    if not checkpoint.exists():
        return
    try:
        with safe_open(checkpoint, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        job.log(f"the checkpoint cannot be read ({error}); training begins again")
        checkpoint.unlink()


def checkpoint_seconds() -> float:
    """Time between checkpoints: `$SYMLAB_CHECKPOINT_SECONDS`, else 20.

    Raises:
        ValueError: if the variable holds something else than a positive number.
    """
    given = os.environ.get("SYMLAB_CHECKPOINT_SECONDS", "20")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        msg = f"SYMLAB_CHECKPOINT_SECONDS: {given!r}; accepted: a number above 0"
        raise ValueError(msg)
    return seconds


def _fit(population: Population, images: Dataset, spec: Spec, job: Job, checkpoint: Path) -> Population:
    epochs, members = spec.training.epochs, population.size
    state = {"note": ""}

    def on_epoch(epoch: int, metrics: dict[str, Array]) -> None:
        record(job, epoch, metrics)
        state["note"] = f"epoch {epoch} of {epochs}, train loss {metrics['train/loss'].mean():.4g}"

    def on_progress(done: float) -> None:
        job.progress(done * members, epochs * members, state["note"])

    def on_resume(mark: str) -> None:
        job.rewind(int(mark))
        job.log(f"going on from the checkpoint after {mark} batches of records")

    hooks = Hooks(
        on_epoch=on_epoch,
        on_progress=on_progress,
        on_checkpoint=lambda: str(job.mark()),
        on_resume=on_resume,
        stopping=job.stopping,
    )
    on_progress(0)
    trainer = Trainer(population, images, spec.training)
    trained = fit(
        trainer,
        precision=spec.precision,
        train_accuracy=spec.train_accuracy,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds(),
        hooks=hooks,
    )
    on_progress(epochs)
    return trained


def record(job: Job, step: int, metrics: Mapping[str, Array]) -> None:
    """One batch of the metric table: every metric of every member, [member], at one step."""
    members = len(next(iter(metrics.values())))
    job.emit(
        "metric",
        member=np.tile(np.arange(members, dtype=np.int32), len(metrics)),
        name=[name for name in metrics for _ in range(members)],
        step=np.full(members * len(metrics), step, dtype=np.int64),
        value=np.concatenate([np.asarray(values, dtype=np.float64) for values in metrics.values()]),
    )


def _evaluate(trained: Population, images: Dataset, spec: Spec, job: Job) -> dict[str, float]:
    """Loss and accuracy of the final weights on every split, as metrics "final/..." and as means over members."""
    evaluator = Evaluator(
        trained.network,
        images,
        stacked_buffers=trained.stacked,
        in_bfloat16=spec.precision == "bfloat16",
        on_chunk=job.pause_point,
    )
    final: dict[str, Array] = {}
    with arithmetic(spec.precision):
        for split in images.splits:
            loss, accuracy = evaluator(trained.effective(), trained.buffers, split)
            final |= {f"final/{split}/loss": loss, f"final/{split}/accuracy": accuracy}
    record(job, spec.training.epochs, final)
    return {name.removeprefix("final/"): float(values.mean()) for name, values in final.items()}


def _keep(trained: Population, path: Path) -> None:
    """Writes the weights in one go, so that a file that is there is whole."""
    partial_path = path.with_suffix(".partial")
    save(trained, partial_path)
    partial_path.replace(path)
