"""The states of a run, the moves between them that are allowed, and what each event of a run means."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a run is. A run's state is the type of its last event; `deleted` and `purged` are events beside it."""

    QUEUED = "queued"
    """Waits for a slot, or for runs whose results it reads."""
    RUNNING = "running"
    """A worker process has it and has been heard of within its lease."""
    CANCELLING = "cancelling"
    """Somebody asked for its end; the worker has not ended yet."""
    CANCELLED = "cancelled"
    """Ended on request; it can be resumed from its last checkpoint."""
    FAILED = "failed"
    """Ended with an error, which the event holds; it can be resumed."""
    LOST = "lost"
    """Its worker has not been heard of for longer than its lease, or died without a word."""
    DONE = "done"
    """Finished: its records, artifacts and summary are whole."""


FINISHED = frozenset({State.DONE, State.FAILED, State.CANCELLED})
"""States without a worker that nothing but a person changes."""

ACTIVE = frozenset({State.RUNNING, State.CANCELLING, State.LOST})
"""States in which a worker process may exist."""

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset(
        {State.CANCELLING, State.DONE, State.FAILED, State.LOST, State.QUEUED, State.CANCELLED}
    ),
    State.CANCELLING: frozenset({State.CANCELLED, State.DONE, State.FAILED}),
    State.LOST: frozenset(
        {State.RUNNING, State.QUEUED, State.CANCELLING, State.CANCELLED, State.DONE, State.FAILED}
    ),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.DONE: frozenset(),
}
"""For each state, those that may follow it."""

STUDY_ORDER = (
    State.RUNNING,
    State.CANCELLING,
    State.LOST,
    State.QUEUED,
    State.FAILED,
    State.CANCELLED,
    State.DONE,
)
"""A study is in the first of these states that one of its runs is in."""


class UnknownError(LookupError):
    """There is no run, study or table of that name."""


class NotAllowedError(ValueError):
    """A request that the state of a run or study forbids; the message names both and what would be accepted."""


def check_move(run: str, current: State, wanted: State) -> None:
    """Refuse a move that no run makes.

    Raises:
        NotAllowedError: `wanted` does not follow `current`.
    """
    if wanted not in MOVES[current]:
        follow = ", ".join(sorted(MOVES[current])) or "nothing"
        message = f"run {run} is {current} and cannot become {wanted}; what can follow is {follow}"
        raise NotAllowedError(message)
