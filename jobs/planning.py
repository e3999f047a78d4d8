"""What a study will cost: the estimates of its planned runs, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jobs.estimates import Estimate
from jobs.registry import kind_of, study_of
from jobs.specs import PlannedRun, RunSpec, SpecHash, StudySpec, spec_hash


def plan(spec: RunSpec | StudySpec) -> list[PlannedRun]:
    """The runs of a study, each after its inputs; a single run plays the role of its kind."""
    if isinstance(spec, StudySpec):
        return study_of(spec).expand(spec)
    return [PlannedRun(spec.kind, spec)]


def estimates(
    planned: Sequence[PlannedRun], upstream: Mapping[SpecHash, RunSpec] | None = None
) -> dict[str, Estimate]:
    """The estimate of each role's run.

    Args:
        planned: The runs, each after those it reads.
        upstream: Specs of runs that are not among them but read by them.

    Raises:
        KeyError: A run reads one that is in neither.
    """
    known = dict(upstream or {})
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
