"""What a study says first: a small table of words and numbers, the same for a terminal and a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

WIDTH = 80
"""Characters of a terminal's line."""
PLUS_MINUS = "±"
Rows = Sequence[Mapping[str, Any]]
"""A result table as rows; a number that was not measured is None."""


@dataclass(frozen=True)
class Headline:
    """A study's answer in a few columns, which `fitted` brings into 80 characters."""

    columns: tuple[str, ...]
    """Headings, of two lines where they hold a line break; the first column stands left, the others right."""
    rows: tuple[tuple[str, ...], ...]
    """Cells as people read them, one for each heading."""
    caption: str
    """What was measured, on what, and what the spreads are."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                msg = f"rows: {row} has {len(row)} cells; accepted: {len(self.columns)}"
                raise ValueError(msg)

    def fitted(self) -> Headline:
        """Itself where it fits `WIDTH` with two blanks after each column; else with every spread below its mean."""
        widths = [
            max(len(line) for cell in column for line in cell.split("\n"))
            for column in zip(self.columns, *self.rows, strict=True)
        ]
        if sum(widths) + 2 * len(widths) <= WIDTH:
            return self
        below = tuple(
            tuple(cell.replace(f" {PLUS_MINUS}", f"\n{PLUS_MINUS}") for cell in row) for row in self.rows
        )
        return replace(self, rows=below)


def spread(mean: float | None, std: float | None, digits: int = 3) -> str:
    """A mean with its standard deviation, "0.621 ± 0.094"; "–" where nothing was measured."""
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if std is None else f" {PLUS_MINUS} {std:.{digits}f}")


def endpoints(loss: Mapping[str, Any], accuracy: Mapping[str, Any]) -> tuple[str, str]:
    """Loss (nats) and accuracy (0 to 1) of the networks that paths join, from a summary's rows; "–" for an empty one."""
    at, right = (spread(row.get("endpoint"), row.get("endpoint_std")) for row in (loss, accuracy))
    return at, right
