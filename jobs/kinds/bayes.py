"""The bayes kind: posteriors over the weights of a population, and how good their predictions are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor

from jobs import memory
from jobs.designs import field_error, size
from jobs.estimates import Estimate
from jobs.fitting import checkpoint, record, train
from jobs.inputs import WEIGHTS, dataset, fetched
from jobs.job import Job
from jobs.kinds.train import Epochs
from jobs.populations import PopulationSpec
from jobs.specs import DataName, RunSpec, SpecHash, checked_checksum, with_checksum
from symcore.data.reduction import as_of, reducible
from symcore.data.sources import SOURCES, Dataset
from symcore.metrics import Array, Evaluator
from symcore.population import build, save
from symcore.posteriors import methods
from symcore.posteriors.methods import Method
from symcore.posteriors.predict import SAMPLES, Posterior, predict
from symcore.posteriors.reliability import Reliability, reliability
from symcore.posteriors.scores import auroc, entropies, score
from symcore.precision import arithmetic
from symcore.settings import is_stored
from symcore.training import Trainer


class Spec(PopulationSpec):
    """Bayesian networks of one form: each network's posterior, learned side by side from their own seeds."""

    kind: Literal["bayes"] = "bayes"
    version: Literal[1] = 1
    method: Method
    """How posteriors are approximated."""
    samples: int = Field(default=SAMPLES, ge=1, le=10_000)
    """Draws of the weights whose class probabilities the predictions at the end average."""
    outside: DataName | None = None
    """Data set of other images, whose test images predictions should be less sure of; larger ones are made smaller. None: that is not asked."""
    outside_checksum: str = ""
    """Names its exact content; filled in when it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_outside(cls, given: Any) -> Any:  # noqa: ANN401 - what came from outside
        return with_checksum(given, "outside")

    @field_validator("outside_checksum")
    @classmethod
    def _names_what_is_read_outside(cls, given: str, info: ValidationInfo) -> str:
        return checked_checksum(given, "outside", info)

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        try:
            self.method.check(self.training)
        except ValueError as error:
            name = str(error).partition(":")[0]
            own = name in type(self.method).model_fields
            at, value = ("method", self.method) if own else ("training", self.training)
            raise field_error(Spec, (at, name), getattr(value, name, None), str(error)) from error
        return self

    @model_validator(mode="after")
    def _outside_fits(self, info: ValidationInfo) -> Self:
        if self.outside is None or is_stored(info):
            return self
        others = [
            name for name, s in SOURCES.items() if name != self.data and reducible(s, SOURCES[self.data])
        ]
        if self.outside not in others:
            msg = f"{self.outside} has no images that a network for {self.data} could read; accepted: none, {', '.join(others)}"
            raise field_error(Spec, ("outside",), self.outside, msg)
        return self


TABLES = {
    "reliability_bin": pa.schema(
        [
            pa.field("member", pa.int32(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("bin", pa.int32(), nullable=False),  # of equal width in confidence, from 0
            pa.field("images", pa.int64(), nullable=False),
            pa.field("confidence", pa.float64(), nullable=False),  # mean, NaN in an empty bin
            pa.field("accuracy", pa.float64(), nullable=False),  # NaN in an empty bin
        ]
    ),
    "entropy_bin": pa.schema(
        [
            pa.field("member", pa.int32(), nullable=False),
            pa.field("split", pa.string(), nullable=False),  # "outside": images of the other data set
            pa.field("lower", pa.float64(), nullable=False),  # nats
            pa.field("upper", pa.float64(), nullable=False),
            pa.field("images", pa.int64(), nullable=False),
        ]
    ),
}
ENTROPY_BINS = 40
"""Of a histogram from 0 to the entropy of not knowing anything."""


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Has none to check."""
    del spec, upstream


def title(spec: Spec) -> str:
    """What is learned, by which method, on what."""
    plural = "s" if len(spec.seeds) > 1 else ""
    return f"{spec.method.label} posteriors of {len(spec.seeds)} {spec.treatment.label} {spec.network.label}{plural} on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Training as `Epochs` counts it, of so many products and numbers as the method has, and a pass for each draw."""
    del upstream
    one, members = size(spec.network, spec.data), len(spec.seeds)
    epochs, sizes = Epochs.of(spec.data, spec.training), SOURCES[spec.data].sizes
    measured = sum(n for split, n in sizes.items() if split != "train") * spec.samples
    state = 6  # weights, gradient, two moments, mask or rates, and a temporary
    kept = 2 * spec.method.products + 4  # outputs of a layer, their gradients, noise
    return Estimate(
        flop=float(one.forward_flop) * members * (epochs.passes * spec.method.products + measured),
        bytes_memory=4
        * members
        * (
            (state * spec.method.copies + spec.method.kept(spec.training)) * one.parameters
            + kept * epochs.batch * one.activations
        ),
        steps=epochs.steps + spec.samples,
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Learns, records metrics after each epoch, predicts with the posteriors at the end, and keeps them.

    Raises:
        TooLargeError: if the device has less memory free than the run takes.
        StoppedError: if the job was asked to stop; a checkpoint is in its folder.
        DataUnavailableError: if the files of a data set cannot be had.
    """
    memory.check(estimate(spec, {}), job.device, "fewer seeds, a smaller batch or network, fewer directions")
    images = dataset(spec, job)
    strange = as_of(fetched(spec.outside, job), "test", images) if spec.outside else None
    population = build(spec.design(), job.device)

    def begin() -> Trainer:
        return methods.begin(population, images, spec.training, spec.method, spec.precision)

    trainer = train(begin, job)
    posterior = methods.posterior(trainer, spec.method)
    with arithmetic(spec.precision):
        final = _predicted(posterior, images, strange, spec, job)
    record(job, spec.training.epochs, {f"final/{name}": values for name, values in final.items()})
    save(posterior.population, job.folder / WEIGHTS)
    job.artifact(job.folder / WEIGHTS, "weights")
    trainer.save(job.folder / POSTERIOR, "")
    job.artifact(job.folder / POSTERIOR, "posterior")
    checkpoint(job).unlink(missing_ok=True)
    return {name: float(values.mean()) for name, values in final.items()}


POSTERIOR = "posterior.safetensors"
"""The file in the run's folder that holds what was learned: a checkpoint of the trainer that the spec begins, at its end."""


def _predicted(
    posterior: Posterior, images: Dataset, strange: Dataset | None, spec: Spec, job: Job
) -> dict[str, Array]:
    """Scores on every split that was not trained on, and how well other images are told by their entropy; [member] each."""
    found: dict[str, Array] = {}
    for split, data in images.splits.items():
        if split == "train":
            continue
        labels = data.labels[data.labels >= 0]  # of a graph's nodes some have none
        predicted = _average(posterior, images, split, spec, job)
        found |= {f"{split}/{name}": values for name, values in vars(score(predicted, labels)).items()}
        _record_reliability(job, split, reliability(predicted, labels))
        inside = entropies(predicted)
        _record_entropies(job, split, inside, images)
        if split == "test" and strange is not None:
            outside = entropies(_average(posterior, strange, "outside", spec, job))
            found |= {
                "outside/entropy": outside.mean(-1).cpu().numpy(),
                "outside/auroc": auroc(inside, outside),
            }
            _record_entropies(job, "outside", outside, images)
    return found


def _average(posterior: Posterior, images: Dataset, split: str, spec: Spec, job: Job) -> Tensor:
    """Log of the mean class probabilities over draws, [member, image, class]."""
    networks = posterior.population
    evaluator = Evaluator(
        networks.network, images, stacked_buffers=networks.stacked, on_chunk=job.pause_point
    )
    epochs = spec.training.epochs * networks.size

    def on_sample(done: int) -> None:
        job.progress(epochs, epochs, f"{split} images, draw {done} of {spec.samples}")

    return predict(posterior, evaluator, split, spec.samples, on_sample)


def _record_reliability(job: Job, split: str, found: Reliability) -> None:
    members, bins = found.images.shape
    job.emit(
        "reliability_bin",
        member=np.repeat(np.arange(members, dtype=np.int32), bins),
        split=[split] * (members * bins),
        bin=np.tile(np.arange(bins, dtype=np.int32), members),
        images=found.images.ravel(),
        confidence=found.confidence.ravel(),
        accuracy=found.accuracy.ravel(),
    )


def _record_entropies(job: Job, split: str, found: Tensor, images: Dataset) -> None:
    """A histogram for each member; rounding can lift an entropy above the largest there is."""
    edges = np.linspace(0, np.log(images.source.classes), ENTROPY_BINS + 1)
    counts = [np.histogram(np.minimum(own, edges[-1]), edges)[0] for own in found.cpu().numpy()]
    members = len(counts)
    job.emit(
        "entropy_bin",
        member=np.repeat(np.arange(members, dtype=np.int32), ENTROPY_BINS),
        split=[split] * (members * ENTROPY_BINS),
        lower=np.tile(edges[:-1], members),
        upper=np.tile(edges[1:], members),
        images=np.concatenate(counts).astype(np.int64),
    )
