"""The distance kind: how far apart the two networks of each pair lie, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from jobs.designs import size
from jobs.estimates import Estimate
from jobs.inputs import aligned, check_members, population
from jobs.job import Job
from jobs.kinds.align import check_alignment, trained_source
from jobs.kinds.train import Spec as TrainSpec
from jobs.specs import Pairs, RunSpec, SpecHash
from symcore.asymmetry import Parameters
from symcore.distances import Distances, distances, relative
from symcore.population import Population

Entries = Literal["trainable", "all"]
"""Which entries of the effective weights F + D * W count: those that are trained (D = 1), or the fixed ones too."""
ENTRIES: tuple[Entries, ...] = ("trainable", "all")


class Spec(RunSpec):
    """Distances between pairs of one trained population (Lim et al. 2024, appendix A)."""

    kind: Literal["distance"] = "distance"
    version: Literal[1] = 1
    source: SpecHash
    """The train run whose networks are compared."""
    alignment: SpecHash | None = None
    """The align run whose permutations are applied to the second networks; none: they are taken as they are."""
    pairs: Pairs
    """Members (a, b) of each pair."""

    def inputs(self) -> tuple[SpecHash, ...]:
        """The train run, and the align run if there is one."""
        return (self.source,) if self.alignment is None else (self.source, self.alignment)


TABLES = {
    "weight_distance": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field("parameter", pa.string(), nullable=False),
            pa.field("entries", pa.string(), nullable=False),  # "trainable" or "all"
            pa.field("count", pa.int64(), nullable=False),  # how many entries that are
            pa.field("distance", pa.float64(), nullable=False),  # ||a - b||_2 over them
            pa.field("norm_a", pa.float64(), nullable=False),
            pa.field("norm_b", pa.float64(), nullable=False),
        ]
    )
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist and are aligned pair by pair; see `jobs.kinds.interpolate.check_inputs`."""
    trained_source(Spec, spec.source, spec.pairs, upstream)
    check_alignment(Spec, spec.alignment, spec.source, spec.pairs, upstream)


def title(spec: Spec) -> str:
    """How many pairs are compared."""
    pairs = "pair" if len(spec.pairs) == 1 else "pairs"
    return f"Measure the distance between the networks of {len(spec.pairs)}{' aligned' if spec.alignment else ''} {pairs}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """Three norms of every network in float64, over all entries and over the trained ones."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    parameters = size(source.network, source.data).parameters
    return Estimate(
        flop=float(len(ENTRIES) * 9 * parameters * len(spec.pairs)),
        bytes_memory=8 * 6 * parameters * len(spec.pairs),
        steps=len(ENTRIES),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Measures all pairs together, over the trained entries and over all.

    Raises:
        StoppedError: if the job was asked to stop; it starts again from the beginning.
    """
    trained = population(spec.source, job)
    check_members(spec.pairs, trained)
    effective = trained.effective()
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    a = {name: p[firsts] for name, p in effective.items()}
    b = aligned({name: p[seconds] for name, p in effective.items()}, spec.alignment, trained, job)
    found: dict[Entries, Distances] = {}
    for done, entries in enumerate(ENTRIES):
        job.progress(done, len(ENTRIES), f"{entries} entries")
        job.pause_point()
        counted = _trainable(spec, trained, job) if entries == "trainable" else None
        found[entries] = distances(a, b, counted)
        _record(job, entries, found[entries])
    job.progress(len(ENTRIES), len(ENTRIES))
    return _summary(found["trainable"])


def _trainable(spec: Spec, trained: Population, job: Job) -> Parameters | None:
    """Which entries are trained in at least one network of each pair, bool [pair, *shape]; none where all are."""
    if trained.asymmetry is None:
        return None
    firsts, seconds = (list(members) for members in zip(*spec.pairs, strict=True))
    everywhere = {name: torch.ones_like(p, dtype=torch.bool) for name, p in trained.parameters.items()}
    masks = everywhere | {
        name: d.expand_as(everywhere[name]) for name, d in trained.asymmetry.trainable.items()
    }
    b = aligned({name: d[seconds].float() for name, d in masks.items()}, spec.alignment, trained, job)
    return {name: d[firsts] | (b[name] != 0) for name, d in masks.items()}


def _record(job: Job, entries: Entries, found: Distances) -> None:
    pairs, parameters = found.distance.shape
    job.emit(
        "weight_distance",
        pair=np.repeat(np.arange(pairs, dtype=np.int16), parameters),
        parameter=list(found.names) * pairs,
        entries=[entries] * (pairs * parameters),
        count=found.entries.ravel(),
        distance=found.distance.ravel(),
        norm_a=found.norm_a.ravel(),
        norm_b=found.norm_b.ravel(),
    )


def _summary(found: Distances) -> dict[str, float]:
    """Distances of whole networks over what is trained, as means over pairs."""
    whole, norm_a, norm_b = (
        np.sqrt((values**2).sum(axis=1)) for values in (found.distance, found.norm_a, found.norm_b)
    )
    return {
        "distance": float(whole.mean()),
        "distance per parameter": float((whole / found.entries.sum(axis=1)).mean()),
        "relative distance": float(relative(whole, norm_a, norm_b).mean()),
    }
