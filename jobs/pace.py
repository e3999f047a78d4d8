"""How far runs are and how fast they go, from the heartbeats of their workers; kept in memory only."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from jobs.job import Progress as Report

WINDOW = 20.0
"""Seconds of heartbeats that a rate is taken over."""


@dataclass(frozen=True)
class Progress:
    """How far a running run is."""

    done: float
    total: float
    """In units of the kind, for example network-epochs."""
    note: str
    rate: float | None
    """Units per second over the last heartbeats; none before the second one."""
    eta: float | None
    """Seconds to the end at that rate."""
    seen: float
    """Seconds since the worker was last heard of."""

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class Pace:
    """The last heartbeats of one run."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, Report]] = deque()
        self.seen = time.monotonic()
        """When the worker was last heard of, on the monotonic clock."""

    def heard(self, report: Report | None = None) -> None:
        """Note a sign of life, with how far the run is where it says so."""
        self.seen = time.monotonic()
        if report is None:
            return
        if self._reports and report.done < self._reports[-1][1].done:
            self._reports.clear()
        self._reports.append((self.seen, report))
        while len(self._reports) > 2 and self.seen - self._reports[0][0] > WINDOW:
            self._reports.popleft()

    def progress(self) -> Progress | None:
        """Where the run is; none before it has said so."""
        if not self._reports:
            return None
        (then, first), (now, last) = self._reports[0], self._reports[-1]
        moved = last.done - first.done
        rate = moved / (now - then) if moved > 0 and now > then else None
        eta = max(0.0, last.total - last.done) / rate if rate else None
        return Progress(last.done, last.total, last.note, rate, eta, time.monotonic() - self.seen)
