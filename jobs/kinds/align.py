"""The align kind: permutes the second network of each pair so that its weights lie close to the first's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from safetensors.torch import save_file

from jobs.designs import field_error, size, weight_matrices
from jobs.estimates import Estimate
from jobs.inputs import PERMUTATIONS, SIGNS, check_members, population
from jobs.job import Job
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import Pairs, RunSpec, SpecHash
from symcore.align.matching import Matching
from symcore.align.weights import Sweep, match


class Spec(RunSpec):
    """Weight matching (Git Re-Basin, Ainsworth et al. 2023) of pairs of one trained population."""

    kind: Literal["align"] = "align"
    version: Literal[1] = 1
    method: Literal["weight_matching"] = "weight_matching"
    """How permutations are found."""
    source: SpecHash
    """The train run whose networks are aligned."""
    pairs: Pairs
    """Members (a, b) of each pair; b is permuted."""
    restarts: int = Field(default=1, ge=1, le=1000)
    """Ascents from which the best is kept; the first starts at the identity. The paper uses one."""
    max_sweeps: int = Field(default=100, ge=1, le=10_000)
    """Most sweeps over all layers in one ascent."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds the order of layers and the starts of further ascents."""

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run."""
        return (self.source,)


TABLES = {
    "alignment": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field("restart", pa.int32(), nullable=False),  # the ascent that was kept
            pa.field("objective", pa.float64(), nullable=False),  # <a, permuted b> over all parameters
            pa.field("identity_objective", pa.float64(), nullable=False),  # <a, b>
            pa.field("sweeps", pa.int32(), nullable=False),
        ]
    )
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist; see `jobs.kinds.interpolate.check_inputs`."""
    trained_source(Spec, spec.source, spec.pairs, upstream)


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
    """How many pairs are aligned."""
    return f"Align {len(spec.pairs)} pairs by weight matching"


SWEEPS = 10
"""Sweeps until an ascent usually stands still."""


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Products of every layer with its counterpart in float64, and assignments in about n^3 steps."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    hidden = [rows for rows, *_ in list(weight_matrices(source.network, source.data).values())[:-1]]
    parameters = size(source.network, source.data).parameters
    widest = max(hidden, default=1)
    ascents = len(spec.pairs) * spec.restarts * min(SWEEPS, spec.max_sweeps)
    return Estimate(
        flop=float(ascents) * (4 * parameters * widest + sum(3 * n**3 for n in hidden)),
        bytes_memory=8 * len(spec.pairs) * (4 * parameters + 2 * widest**2),
        steps=spec.restarts * min(SWEEPS, spec.max_sweeps) * len(hidden),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Aligns all pairs together and keeps the permutations.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
        AlignmentError: if a permuted network computes something else than the original.
    """
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)
    effective = trained.effective()
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    most = spec.restarts * spec.max_sweeps

    def on_sweep(sweep: Sweep) -> None:
        note = f"restart {sweep.restart}, sweep {sweep.sweep}, {sweep.moving} pairs moving"
        job.progress(sweep.restart * spec.max_sweeps + sweep.sweep, most, note)

    matching = match(
        trained.network,
        {name: p[firsts] for name, p in effective.items()},
        {name: p[seconds] for name, p in effective.items()},
        torch.zeros(2, *trained.design.input_shape, device=job.device),
        restarts=spec.restarts,
        max_sweeps=spec.max_sweeps,
        seed=spec.seed,
        stopping=job.stopping,
        on_sweep=on_sweep,
    )
    job.progress(most, most)
    return _keep(matching, job)


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
