"""Tells a person at a terminal, or a log, how far a study is and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TextIO

from jobs.execution import Outcome
from jobs.job import Progress
from jobs.summaries import with_spread


class ProgressLine:
    """Prints one line that is renewed at a terminal, or a line now and then elsewhere.

    Each run weighs what it was estimated to take; the time left follows from how fast the whole has gone so far.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = 0.5 if self._terminal else 10.0
        self._weights: dict[str, float] = {}
        self._finished = self._skipped = 0.0
        self._started = self._printed = time.monotonic()
        self._working = False

    def begin(self, weights: Mapping[str, float]) -> None:
        """Takes the estimated seconds of every role."""
        self._weights = dict(weights)
        self._started = time.monotonic()

    def progress(self, role: str, progress: Progress) -> None:
        """A run reports; printed if it is time to."""
        self._working = True
        now = time.monotonic()
        if now - self._printed < self._every:
            return
        self._printed = now
        done = self._finished + self._weights[role] * progress.done / max(progress.total, 1e-9)
        total = sum(self._weights.values())
        note = f", {progress.note}" if progress.note else ""
        self._line(f"{done / total:4.0%}  {self._left(done, total)}  {role}{note}", end="")

    def done(self, role: str, outcome: Outcome) -> None:
        """A run is done, now or in an earlier attempt."""
        self._finished += self._weights[role]
        if not self._working:
            self._skipped += self._weights[role]
        self._working = False
        numbers = "  ".join(
            f"{name} {value:.4g}" + ("" if std is None else f" ± {std:.2g}")
            for name, (value, std) in with_spread(outcome.summary).items()
            if value is not None
        )
        self._line(f"{role}: {outcome.seconds:.1f} s  {numbers}", end="\n")

    def end(self, outcome: Outcome) -> None:
        """The study is over, or as far as it got."""
        took = timedelta(seconds=round(time.monotonic() - self._started))
        self._line(
            f"{outcome.state} after {took}" + (f": {outcome.error}" if outcome.error else ""), end="\n"
        )

    def _left(self, done: float, total: float) -> str:
        gained = done - self._skipped
        if gained <= 0:
            return "time left unknown"
        seconds = (time.monotonic() - self._started) * (total - done) / gained
        return f"{timedelta(seconds=round(seconds))} left"

    def _line(self, text: str, end: str) -> None:
        """At a terminal a line is written over the last one; ESC [K clears what was longer."""
        self._stream.write(f"\r{text}\x1b[K{end}" if self._terminal else f"{text}\n")
        self._stream.flush()
