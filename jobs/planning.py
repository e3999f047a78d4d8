"""What a study will cost: the estimates of its planned runs, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobs.estimates import Estimate
from jobs.registry import kind_of, study_of
from jobs.specs import PlannedRun, RunSpec, StudySpec, spec_hash


def plan(spec: RunSpec | StudySpec) -> list[PlannedRun]:
    """The runs of a study, each after its inputs; a single run plays the role of its kind."""
    if isinstance(spec, StudySpec):
        return study_of(spec).expand(spec)
    return [PlannedRun(spec.kind, spec)]


def estimates(planned: Sequence[PlannedRun]) -> dict[str, Estimate]:
    """The estimate of each role's run."""
    known: dict[str, RunSpec] = {}
    found = {}
    for run in planned:
        found[run.role] = kind_of(run.spec).estimate(run.spec, known)
        known[spec_hash(run.spec)] = run.spec
    return found


def total(parts: Iterable[Estimate]) -> Estimate:
    """Runs one after another: operations and steps add up, memory is the largest."""
    listed = list(parts)
    return Estimate(
        flop=sum(e.flop for e in listed),
        bytes_memory=max(e.bytes_memory for e in listed),
        steps=sum(e.steps for e in listed),
    )
