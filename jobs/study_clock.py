"""How far a study is and how long it will still take, its runs weighed by what they are estimated to cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs import queries, registry
from jobs.dispatcher import Dispatcher
from jobs.planning import estimates, plan
from jobs.specs import PlannedRun, RunSpec, SpecHash
from jobs.states import State
from jobs.store import Store


@dataclass(frozen=True)
class Share:
    """One run's part in the time of a study."""

    cost: float
    """Estimated seconds of the whole run."""
    fraction: float
    """Share of it that is done, 0 to 1."""
    spent: float
    """Seconds it has had a worker; 0 for a reused run."""


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is, its runs weighed by their estimated cost."""

    fraction: float
    eta: float | None
    """Seconds to the end; none before the first sign of progress."""
    states: Mapping[str, int]
    """How many of its runs are in each state."""
    notes: Mapping[str, str]
    """What its running runs say, by role."""


def study_fraction_and_eta(shares: Sequence[Share], slots: int) -> tuple[float, float | None]:
    """Share of a study's work that is done, and the seconds left with `slots` runs at once.

    The estimates' own scale does not matter: it is fitted to the time that the study has taken so far.
    """
    whole = sum(share.cost for share in shares)
    if whole <= 0:
        return 1.0, 0.0
    done = sum(share.cost * share.fraction for share in shares)
    timed = [share for share in shares if share.spent > 0]
    work, spent = sum(share.cost * share.fraction for share in timed), sum(share.spent for share in timed)
    left = [share.cost * (1 - share.fraction) for share in shares if share.fraction < 1]
    if not left:
        return 1.0, 0.0
    eta = sum(left) * spent / work / min(slots, len(left)) if work > 0 else None
    return done / whole, eta


class StudyClock:
    """Tells the progress of a lab's studies; remembers what their runs are estimated to cost."""

    def __init__(self, store: Store, dispatcher: Dispatcher) -> None:
        self._store, self._dispatcher = store, dispatcher
        self._costs: dict[str, Mapping[str, float]] = {}

    def progress(self, study: str) -> StudyProgress:
        """Where a study is now.

        Raises:
            UnknownError: There is no such study.
        """
        found = queries.study(self._store, study)
        costs = self._study_costs(study, found["spec"])
        shares, notes = [], {}
        for member in {row["run"]: row for row in reversed(found["runs"])}.values():
            done = member["state"] == State.DONE
            progress = None if done else self._dispatcher.progress(member["run"])
            if progress is not None and progress.note:
                notes[member["role"]] = progress.note
            fraction = 1.0 if done else progress.fraction if progress else 0.0
            spent = 0.0 if member["reused"] else member["seconds"] or 0.0
            shares.append(Share(costs.get(member["role"], 1.0), fraction, spent))
        states = [member["state"] for member in found["runs"]]
        fraction, eta = study_fraction_and_eta(shares, max(1, len(self._dispatcher.slots)))
        return StudyProgress(
            fraction, eta, {state: states.count(state) for state in dict.fromkeys(states)}, notes
        )

    def _study_costs(self, study: str, spec: Mapping[str, Any]) -> Mapping[str, float]:
        """Estimated seconds of a study's runs by role, on the first slot's device."""
        if study not in self._costs:
            device = self._dispatcher.slots[0].device if self._dispatcher.slots else "cpu"
            try:
                planned = plan(registry.spec(spec, stored=True))
                found = estimates(planned, self._upstream(planned))
            except (ValueError, KeyError):
                # An older version made a spec that this one cannot, or what it reads, or its network, is not here.
                found = {}
            self._costs[study] = {role: cost.seconds(device) for role, cost in found.items()}
        return self._costs[study]

    def _upstream(self, planned: Sequence[PlannedRun]) -> dict[SpecHash, RunSpec]:
        """Specs that this lab knows of the runs that planned ones read."""
        hashes = {key for run in planned for key in run.spec.inputs()}
        query = "SELECT hash, any_value(spec) AS spec FROM run WHERE hash IN (SELECT unnest($hashes::VARCHAR[])) GROUP BY hash"
        rows = self._store.read(query, {"hashes": list(hashes)}).to_pylist()
        return {row["hash"]: registry.run_spec(row["spec"], stored=True) for row in rows}
