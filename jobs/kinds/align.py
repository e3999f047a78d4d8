"""The align kind: permutes the second network of each pair so that it comes close to the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, model_serializer, model_validator
from safetensors.torch import save_file
from torch import Tensor

from jobs.checkpoints import Checkpoint
from jobs.designs import field_error, size, weight_matrices
from jobs.estimates import Estimate
from jobs.inputs import PERMUTATIONS, SIGNS, check_members, dataset, population
from jobs.job import Job
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import DataName, MaybeDataRunSpec, Pairs, RunSpec, SpecHash
from symcore.align.activations import ActivationMatching
from symcore.align.cycle import CycleConsistent
from symcore.align.matching import Matching, Networks, Watch
from symcore.align.methods import Method
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.align.weights import WeightMatching
from symcore.data.sources import SOURCES, Source
from symcore.settings import is_stored


class Spec(MaybeDataRunSpec):
    """Pairs of one trained population, aligned by any of several methods."""

    kind: Literal["align"] = "align"
    version: Literal[1, 2] = 1
    """Filled in when it is left out: 2 for methods that left signs alone in version 1, which is only read where it is stored."""
    data: DataName | None = None
    """Data set that the networks were trained on, for the methods that read images; the others take none."""
    method: Method = WeightMatching()
    """How permutations are found."""
    source: SpecHash
    """The train run whose networks are aligned."""
    pairs: Pairs
    """Members (a, b) of each pair; b is permuted."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds all that is random: orders of layers and of images, starts of further ascents."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_version(cls, given: Any) -> Any:  # noqa: ANN401 - what came from outside
        if not isinstance(given, dict) or given.get("version"):
            return given
        method = given.get("method")
        kind = method.get("kind") if isinstance(method, dict) else getattr(method, "kind", method)
        return given | {"version": current(kind)}

    @model_validator(mode="after")
    def _is_carried_out_as_it_says(self, info: ValidationInfo) -> Self:
        now = current(self.method.kind)
        if self.version != now and not is_stored(info):
            msg = (
                f"{self.version} is of an earlier version of the lab; accepted: {now}, in a study begun anew"
            )
            raise field_error(Spec, ("version",), self.version, msg)
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_as_once_written(cls, given: Any) -> Any:  # noqa: ANN401 - what came from outside
        """Takes the settings of weight matching beside its name; see `_write_as_once_written`."""
        if not isinstance(given, dict) or given.get("method") != WEIGHT_MATCHING:
            return given
        own = {name: given[name] for name in WeightMatching.model_fields if name != "kind" and name in given}
        rest = {name: value for name, value in given.items() if name not in own}
        return rest | {"method": {"kind": WEIGHT_MATCHING} | own}

    @model_serializer(mode="wrap")
    def _write_as_once_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Weight matching is written as when there was no other method, so that its hashes stay."""
        written: dict[str, Any] = handler(self)
        if not isinstance(self.method, WeightMatching):
            return written
        method = self.method.model_dump(mode="json")
        later = {name for name in LATER if method[name] == WeightMatching.model_fields[name].default}
        old = {name: value for name, value in method.items() if name not in {"kind", *later}}
        rest = {name: value for name, value in written.items() if name not in {"data", "data_checksum"}}
        return rest | old | {"method": WEIGHT_MATCHING}

    @model_validator(mode="after")
    def _names_data_where_images_are_read(self) -> Self:
        if self.method.reads_images and self.data is None:
            msg = (
                f"none given; accepted: the data set of the train run, whose images {self.method.label} reads"
            )
            raise field_error(Spec, ("data",), None, msg)
        if self.data is not None and not self.method.reads_images:
            msg = f"{self.data} is not read by {self.method.label} as it is set; accepted: none"
            raise field_error(Spec, ("data",), self.data, msg)
        return self

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run."""
        return (self.source,)


def current(method: object) -> Literal[1, 2]:
    """The version of runs by a method of that kind."""
    return 2 if method in SIGNED_LATER else 1


WEIGHT_MATCHING = "weight_matching"
SIGNED_LATER = ("sinkhorn", "cycle_consistent")
"""Kinds of the methods whose neurons kept their signs in version 1."""
LATER = ("signs",)
"""Settings of weight matching that came after runs had been stored; at their defaults they are not written."""
TABLES = {
    "alignment": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field("restart", pa.int32(), nullable=False),  # the ascent that was kept
            pa.field("objective", pa.float64(), nullable=False),  # <a, permuted b> over all parameters
            pa.field("identity_objective", pa.float64(), nullable=False),  # <a, b>
            pa.field("sweeps", pa.int32(), nullable=False),  # or steps of learning until what was kept
        ]
    ),
    "alignment_look": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),
            pa.field("step", pa.int32(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),  # loss halfway (nats), or squared distance
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist; see `jobs.kinds.interpolate.check_inputs`."""
    trained = trained_source(Spec, spec.source, spec.pairs, upstream)
    if trained is not None and spec.data is not None:
        check_data(Spec, spec.data, spec.source, trained)


def trained_source(
    model: type[RunSpec], source: SpecHash, pairs: Pairs, upstream: Mapping[SpecHash, RunSpec]
) -> TrainSpec | None:
    """The train run whose networks are paired; none if it is not known.

    Raises:
        ValidationError: if it is no train run, or has too few networks.
    """
    found = upstream.get(source)
    if found is None:
        return None
    if not isinstance(found, TrainSpec):
        msg = f"{source} is {found.kind}; accepted: the hash of a train run"
        raise field_error(model, ("source",), source, msg)
    members = len(found.seeds)
    for pair in pairs:
        if max(pair) >= members:
            msg = f"{list(pair)} is not in source {source}; accepted: members 0 to {members - 1}"
            raise field_error(model, ("pairs",), pairs, msg)
    return found


def check_data(model: type[RunSpec], data: str, source: SpecHash, trained: TrainSpec) -> None:
    """Makes sure that networks are evaluated on the data set on which they were trained.

    Raises:
        ValidationError: if it is another.
    """
    if data != trained.data:
        msg = f"{data} is not what the networks of source {source} were trained on; accepted: {trained.data}"
        raise field_error(model, ("data",), data, msg)


def check_alignment(
    model: type[RunSpec],
    alignment: SpecHash | None,
    source: SpecHash,
    pairs: Pairs,
    upstream: Mapping[SpecHash, RunSpec],
) -> None:
    """Makes sure that the align run which is read, if any, aligns these pairs.

    Raises:
        ValidationError: if it does not, or is no align run.
    """
    known = upstream.get(alignment) if alignment else None
    if known is None:
        return
    if not isinstance(known, Spec) or (known.source, known.pairs) != (source, pairs):
        msg = f"{alignment} does not align these pairs of source {source}; accepted: an align run that does"
        raise field_error(model, ("alignment",), alignment, msg)


def title(spec: Spec) -> str:
    """How many pairs are aligned, and how."""
    plural = "s" if len(spec.pairs) > 1 else ""
    signs = " without sign flips" if not getattr(spec.method, "signs", True) else ""
    return f"Align {len(spec.pairs)} pair{plural} by {spec.method.label}{signs}"


SWEEPS = 10
"""Sweeps until an ascent usually stands still; one that starts from an earlier end takes about 2."""


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Products of every layer with its counterpart, assignments in about n^3 steps, and passes over images."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    matrices = weight_matrices(source.network, source.data)
    hidden = [rows for rows, *_ in list(matrices.values())[:-1]]
    one, pairs, widest = size(source.network, source.data), len(spec.pairs), max(hidden, default=1)
    sweeps, image_passes, images = _work(spec.method, SOURCES[source.data])
    sweep = 4 * one.parameters * widest + sum(3 * n**3 for n in hidden)
    return Estimate(
        flop=float(pairs) * (sweeps * sweep + image_passes * images * one.forward_flop),
        bytes_memory=8 * pairs * (4 * one.parameters + 2 * widest**2),
        steps=int(sweeps * len(hidden) + image_passes),
    )


def _work(method: Method, data: Source) -> tuple[float, float, int]:
    """Sweeps over all layers, passes forward over some images (a backward pass is two), and how many images those are."""
    match method:
        case WeightMatching():
            return method.restarts * min(SWEEPS, method.max_sweeps), 0, 0
        case ActivationMatching():
            return 1, 2, data.nodes or min(method.images, data.sizes["train"])
        case StraightThrough():
            return 2 * method.steps, 3 * method.steps, data.nodes or method.batch
        case Sinkhorn():
            return method.steps, 3 * method.steps if method.reads_images else 0, data.nodes or method.batch
        case CycleConsistent():
            return 5 * min(SWEEPS, method.max_steps) + SWEEPS, 0, 0


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Aligns all pairs together and keeps the permutations.

    Raises:
        StoppedError: if the job was asked to stop; a checkpoint of learning is in its folder, other methods start again.
        AlignmentError: if a permuted network computes something else than the original.
        DataUnavailableError: if the data set's files cannot be had.
    """
    images = dataset(spec, job) if spec.data is not None else None
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)

    def on_look(pair: int, step: int, values: Tensor) -> None:
        count = len(values)
        job.emit(
            "alignment_look",
            pair=np.arange(pair, pair + count, dtype=np.int16),
            step=np.full(count, step, dtype=np.int32),
            value=values.numpy(),
        )

    networks = Networks(
        trained.network,
        trained.effective(),
        spec.pairs,
        torch.zeros(2, *trained.design.input_shape, device=job.device),
    )
    checkpoint = Checkpoint(job)
    watch = Watch(job.stopping, job.progress, on_look, checkpoint)
    job.progress(0, 1)
    matching = spec.method.match(networks, images, seed=spec.seed, watch=watch)
    job.progress(1, 1)
    summary = _keep(matching, job)
    checkpoint.drop()
    return summary


def _keep(matching: Matching, job: Job) -> dict[str, float]:
    pairs = len(matching.objective)
    job.emit(
        "alignment",
        pair=np.arange(pairs, dtype=np.int16),
        restart=matching.restart.numpy(),
        objective=matching.objective.cpu().numpy(),
        identity_objective=matching.identity_objective.cpu().numpy(),
        sweeps=matching.sweeps.numpy(),
    )
    path = job.folder / PERMUTATIONS
    partial = path.with_suffix(".partial")
    signs = {f"{SIGNS}{name}": s for name, s in matching.signs.items()}
    save_file({name: p.contiguous() for name, p in (matching.permutations | signs).items()}, partial)
    partial.replace(path)
    job.artifact(path, "permutations")
    gain = (matching.objective - matching.identity_objective).mean().item()
    return {"objective": matching.objective.mean().item(), "gain": gain}
