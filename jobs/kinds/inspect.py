"""The inspect kind: which permutations of neurons a network allows, and what transforming its weights changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from pydantic import (
    Field,
    PlainSerializer,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from jobs.designs import check_treatment, field_error, size
from jobs.estimates import Estimate
from jobs.inputs import WEIGHTS
from jobs.job import Job
from jobs.populations import Seed
from jobs.specs import DataName, RunSpec, SpecHash, refusal
from symcore.data.sources import SOURCES
from symcore.metrics import Array
from symcore.networks.registry import NetworkSpec
from symcore.population import Design, Population, build, save
from symcore.settings import is_stored
from symcore.symmetry.automorphisms import Automorphisms, coloured_graph, find, neurons
from symcore.symmetry.inspector import TRANSFORMATIONS, changes
from symcore.symmetry.permutations import PermutationSpec
from symcore.symmetry.signed import Signed, signed
from symcore.treatments import Standard, Treatment


class Spec(RunSpec):
    """Symmetries of one freshly initialised network (Lim et al. 2024, section 3)."""

    kind: Literal["inspect"] = "inspect"
    version: Annotated[Literal[2], PlainSerializer(int, return_type=int)] = 2
    data: DataName
    """Data set whose images and classes the network is made for; none of its files is read."""
    network: NetworkSpec
    """Form of the network."""
    treatment: Treatment
    """What is done to its symmetries."""
    seed: Seed = 0
    """Seeds initialisation, inputs and transformations."""
    mask_seed: Seed | None = None
    """Seeds masks, fixed weights and FiGLU's F; none for a standard network."""
    draws: int = Field(default=20, ge=1, le=10_000)
    """Random transformations of each kind."""
    probes: int = Field(default=64, ge=1, le=10_000)
    """Normal inputs on which outputs are compared."""

    @field_validator("version", mode="wrap")
    @classmethod
    def _reads_the_first(
        cls, given: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        """Runs of version 1, which knew no signs and no rescaling, can be read and no longer be begun."""
        if given != 1:
            return handler(given)
        if not is_stored(info):
            msg = "1 is of an earlier version of the lab; accepted: 2, in a study begun anew"
            raise refusal(msg)
        return given

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        standard = isinstance(self.treatment, Standard)
        if standard != (self.mask_seed is None):
            accepted = "none for a standard network" if standard else "an integer from 0"
            msg = f"mask_seed: {self.mask_seed} does not fit the treatment; accepted: {accepted}"
            raise field_error(Spec, ("mask_seed",), self.mask_seed, msg)
        if not is_stored(info):
            check_treatment(Spec, ("treatment",), self.network, self.data, self.treatment)
        return self


TABLES = {
    "symmetry_order": pa.schema(
        [
            pa.field(
                "certificate", pa.string(), nullable=False
            ),  # how the order is known, see automorphisms.find
            pa.field("log10_least", pa.float64(), nullable=False),  # of the group's order, at least
            pa.field("log10_most", pa.float64(), nullable=False),
            pa.field("rounds", pa.int32(), nullable=False),  # of colour refinement
            # None in runs of version 1:
            pa.field("flippable", pa.int64()),  # neurons that could change sign if nothing were fixed
            pa.field("sign_changes", pa.int64()),  # independent ones that are left
            pa.field("signed_log10_least", pa.float64()),  # of the order of the signed permutations
            pa.field("signed_log10_most", pa.float64()),
        ]
    ),
    "symmetry_group": pa.schema(
        [
            pa.field("group", pa.string(), nullable=False),  # neurons that a standard network can permute
            pa.field("size", pa.int64(), nullable=False),
            pa.field("cells", pa.int64(), nullable=False),  # classes that colour refinement tells apart
            pa.field("axes", pa.string(), nullable=False),  # "weight[0], ...": where they lie
        ]
    ),
    "symmetry_change": pa.schema(
        [
            pa.field("transformation", pa.string(), nullable=False),
            pa.field("draw", pa.int32(), nullable=False),
            pa.field("change", pa.float64(), nullable=False),  # of the outputs, relative
        ]
    ),
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """It reads no run, so that all fit."""
    del spec, upstream


def title(spec: Spec) -> str:
    """What is looked at."""
    return f"Inspect a {spec.treatment.label} {spec.network.label} for {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per transformation, in float64, twice the work of float32."""
    del upstream
    one = size(spec.network, spec.data)
    tried = len(TRANSFORMATIONS) * spec.draws
    return Estimate(
        flop=2.0 * one.forward_flop * spec.probes * tried,
        bytes_memory=8 * (8 * one.parameters + 4 * spec.probes * one.activations),
        steps=tried,
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Builds the network, finds its automorphisms, measures its transformations and keeps it.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
    """
    source = SOURCES[spec.data]
    mask_seed = 0 if spec.mask_seed is None else spec.mask_seed
    network = build(
        Design(spec.network, spec.treatment, source.input_shape, source.classes, (spec.seed,), (mask_seed,))
    )
    path = job.folder / WEIGHTS
    save(network, path)
    job.artifact(path, WEIGHTS)
    example = torch.zeros(2, *source.input_shape)
    found = find(coloured_graph(network.network, example, network.asymmetry))
    with_signs = signed(network.network, example, network.asymmetry, found)
    _record_group(job, found, with_signs, neurons(network.network, example))
    measured = _measure(spec, job, network)
    for name, values in measured.items():
        draws = np.arange(spec.draws, dtype=np.int32)
        job.emit("symmetry_change", transformation=[name] * spec.draws, draw=draws, change=values)
    largest = {f"{name}/largest change": float(values.max()) for name, values in measured.items()}
    orders = {"log10 order": found.log10_most, "log10 signed order": with_signs.log10_most}
    return orders | {"certified trivial": float(found.trivial)} | largest


def _record_group(job: Job, found: Automorphisms, with_signs: Signed, spec: PermutationSpec) -> None:
    job.emit(
        "symmetry_order",
        certificate=[found.certificate],
        log10_least=[found.log10_least],
        log10_most=[found.log10_most],
        rounds=[found.rounds],
        flippable=[with_signs.flippable],
        sign_changes=[with_signs.changes],
        signed_log10_least=[with_signs.log10_least],
        signed_log10_most=[with_signs.log10_most],
    )
    job.emit(
        "symmetry_group",
        group=[group.name for group in spec.groups],
        size=[group.size for group in spec.groups],
        cells=[len(np.unique(found.cells[group.name])) for group in spec.groups],
        axes=[", ".join(f"{name}[{axis}]" for name, axis in group.axes) for group in spec.groups],
    )


def _measure(spec: Spec, job: Job, network: Population) -> dict[str, Array]:
    done, total = 0, len(TRANSFORMATIONS) * spec.draws

    def on_draw() -> None:
        nonlocal done
        done += 1
        job.progress(done, total, "transformations")
        job.pause_point()

    return changes(network, draws=spec.draws, probes=spec.probes, seed=spec.seed, on_draw=on_draw)
