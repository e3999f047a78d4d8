"""What a study says first: a small table of words and numbers, the same for a terminal and a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]
"""A result table as rows; a number that was not measured is None."""


@dataclass(frozen=True)
class Headline:
    """A study's answer in a few columns that fit 80 characters."""

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


def spread(mean: float | None, std: float | None, digits: int = 3) -> str:
    """A mean with its standard deviation, "0.621 ± 0.094"; "–" where nothing was measured."""
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
