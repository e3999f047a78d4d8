"""The train kind: one population of networks, trained to the end and kept as one file of weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import pyarrow as pa
from pydantic import Field, ValidationInfo, model_validator

from jobs.designs import field_error, size
from jobs.estimates import Estimate
from jobs.fitting import checkpoint, record, train
from jobs.inputs import WEIGHTS, average, dataset, snapshot
from jobs.job import Job
from jobs.populations import PopulationSpec
from jobs.specs import RunSpec, SpecHash
from symcore.data.sources import SOURCES, Dataset
from symcore.metrics import Array, Evaluator
from symcore.networks.registered import RegisteredSpec
from symcore.networks.registry import NetworkSpec
from symcore.population import Population, build, save
from symcore.precision import arithmetic
from symcore.settings import is_stored
from symcore.training import Trainer, TrainingSpec
from symcore.treatments import FixedBiases, Gates, Masks, Treatment


class Spec(PopulationSpec):
    """Networks of one form, trained side by side from their own seeds."""

    kind: Literal["train"] = "train"
    version: Literal[1, 2, 3] = 1
    """Filled in when it is left out: that of the lab now; those before, which did something else, are only read where they are stored; see `current`."""
    # at their defaults the JSON does not have these, so that runs made before they existed keep their hashes
    snapshots: int = Field(default=0, ge=0, le=1000, exclude_if=operator.not_)
    """Times before the end at which weights are kept, evenly spaced from the start on; at most one an epoch."""
    train_accuracy: bool = Field(default=False, exclude_if=operator.not_)
    """Record the accuracy on all training images after each epoch too; it takes about a quarter more time."""
    start: SpecHash | None = Field(default=None, exclude_if=operator.not_)
    """The train run of the same networks from whose weights training goes on; none: it begins at initialisation."""
    averaged: int = Field(default=0, ge=0, le=1000, exclude_if=operator.not_)
    """Its last snapshots over which, and its end, these weights are averaged; 0: they are those of its end."""

    @model_validator(mode="after")
    def _is_carried_out_as_it_says(self, info: ValidationInfo) -> Self:
        now = current(self.network, self.treatment)
        if "version" not in self.model_fields_set:
            object.__setattr__(self, "version", now)  # it follows from other fields
        elif self.version != now and not is_stored(info):
            msg = (
                f"{self.version} is of an earlier version of the lab; accepted: {now}, in a study begun anew"
            )
            raise field_error(Spec, ("version",), self.version, msg)
        return self

    @model_validator(mode="after")
    def _snapshots_and_start_fit(self) -> Self:
        if self.snapshots > self.training.epochs:
            msg = f"snapshots: {self.snapshots} in {self.training.epochs} epochs; accepted: 0 to {self.training.epochs}"
            raise field_error(Spec, ("snapshots",), self.snapshots, msg)
        if self.averaged and self.start is None:
            msg = f"{self.averaged}, and start names no run whose snapshots these were; accepted: 0"
            raise field_error(Spec, ("averaged",), self.averaged, msg)
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The run that training goes on from, if there is one."""
        return () if self.start is None else (self.start,)


def current(network: NetworkSpec, treatment: Treatment) -> Literal[1, 2, 3]:
    """The version of runs of these networks.

    It is 2 where biases were fixed that BatchNorm takes out, and where FiGLU took the place of ReLU and GELU alone; 3 where
    the layers of a person's own network were taken in the order in which they are registered.
    """
    if isinstance(treatment, Masks | FixedBiases) and isinstance(network, RegisteredSpec):
        return 3
    undone = isinstance(treatment, FixedBiases) and getattr(network, "norm", None) == "batch"
    own = isinstance(treatment, Gates) and isinstance(network, RegisteredSpec)
    return 2 if undone or own else 1


TABLES: dict[str, pa.Schema] = {}


NETWORKS = ("data", "network", "treatment", "seeds", "mask_seeds")
"""Settings that say which networks a run trains."""


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the run from which training goes on trained the same networks, and kept the snapshots that are averaged.

    Raises:
        ValidationError: pointing at the field that does not fit, with what is accepted.
    """
    source = upstream.get(spec.start) if spec.start else None
    if source is None:
        return
    if not isinstance(source, Spec):
        msg = f"{spec.start} is {source.kind}; accepted: the hash of a train run"
        raise field_error(Spec, ("start",), spec.start, msg)
    for name, (own, theirs) in differences(spec, source).items():
        msg = f"{own}, where start {spec.start} has another; accepted: {theirs}"
        raise field_error(Spec, (name,), own, msg)
    if spec.averaged > source.snapshots:
        msg = f"{spec.averaged}; start {spec.start} keeps {source.snapshots} snapshots; accepted: as many or fewer"
        raise field_error(Spec, ("averaged",), spec.averaged, msg)


def differences(one: Spec, other: Spec) -> dict[str, tuple[Any, Any]]:
    """Settings in which two runs train different networks, by name with the JSON values of both."""
    own, theirs = (of.model_dump(mode="json") for of in (one, other))
    return {name: (own[name], theirs[name]) for name in NETWORKS if own[name] != theirs[name]}


def title(spec: Spec) -> str:
    """What is trained, on what."""
    plural = "s" if len(spec.seeds) > 1 else ""
    start = (
        "" if spec.start is None else ", on from a weight average" if spec.averaged else ", on from an end"
    )
    return (
        f"Train {len(spec.seeds)} {spec.treatment.label} {spec.network.label}{plural} on {spec.data}{start}"
    )


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Steps and passes as `Epochs` counts them."""
    del upstream
    one, members = size(spec.network, spec.data), len(spec.seeds)
    epochs = Epochs.of(spec.data, spec.training, train_accuracy=spec.train_accuracy)
    copies = 6  # weights, gradient, two moments, mask or rates, and a temporary
    return Estimate(
        flop=float(one.forward_flop) * members * epochs.passes,
        bytes_memory=4 * members * (copies * one.parameters + 4 * epochs.batch * one.activations),
        steps=epochs.steps,
    )


class Epochs(NamedTuple):
    """What training costs a network."""

    passes: int
    """Images, or nodes, times forward passes: three of each trained on in an epoch, and one of each measured on after it."""
    batch: int
    """Images, or nodes, in a step."""
    steps: int

    @classmethod
    def of(cls, data: str, training: TrainingSpec, *, train_accuracy: bool = False) -> Epochs:
        """Counts them; of a graph every pass is over all nodes, and one measures on all splits."""
        source = SOURCES[data]
        measured = source.nodes or sum(
            n for split, n in source.sizes.items() if split != "train" or train_accuracy
        )
        trained, batch = source.rows("train"), source.nodes or training.batch
        epochs = training.epochs
        return cls(epochs * (3 * trained + measured), batch, epochs * -(-trained // batch))


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Trains, records metrics after each epoch, evaluates the end on every split and keeps the weights.

    Raises:
        StoppedError: if the job was asked to stop; a checkpoint is in its folder.
        DataUnavailableError: if the data set's files cannot be had.
    """
    images = dataset(spec, job)
    population = build(spec.design(), job.device)
    if spec.start is not None:
        members = range(population.size)
        population = population.with_effective(average(spec.start, members, spec.averaged, job))
    wanted = snapshot_epochs(spec)

    def on_epoch(trainer: Trainer, epoch: int) -> None:
        if epoch in wanted:
            _keep(trainer.trained(), job.folder / snapshot(epoch))

    if 0 in wanted:
        _keep(population, job.folder / snapshot(0))
    trained = train(
        lambda: Trainer(population, images, spec.training, precision=spec.precision),
        job,
        on_epoch,
        train_accuracy=spec.train_accuracy,
    ).trained()
    summary = _evaluate(trained, images, spec, job)
    _keep(trained, job.folder / WEIGHTS)
    job.artifact(job.folder / WEIGHTS, "weights")
    for epoch in wanted:
        job.artifact(job.folder / snapshot(epoch), Path(snapshot(epoch)).stem)
    checkpoint(job).unlink(missing_ok=True)
    return summary


def snapshot_epochs(spec: Spec) -> list[int]:
    """Epochs after which weights are kept, 0 those at the start, evenly spaced up to the end, which is not among them."""
    return [round(place * spec.training.epochs / spec.snapshots) for place in range(spec.snapshots)]


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
