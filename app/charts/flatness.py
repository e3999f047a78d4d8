"""What surfaces say in numbers, treatment beside treatment: cards, a line for lists, and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from app.charts import tables
from app.charts.tables import Column

PERCENT = 100.0


def rows(treatments: Sequence[str], summary: pd.DataFrame) -> pd.DataFrame:
    """The summary by treatment in the order asked for, shares and accuracies in %; NaN where nothing is done yet."""
    found = summary.set_index("treatment").reindex(list(treatments))
    shares = ["flat_share", "flat_share_std", "accuracy", "accuracy_std"]
    found[shares] = found[shares].astype(float) * PERCENT
    return found


def columns(treatments: Sequence[str], summary: pd.DataFrame) -> list[Column]:
    """What is told of each treatment: its random planes, the barriers between its networks, the networks themselves."""
    found = rows(treatments, summary)
    return [
        Column.of(found, "flat_share", "Flat share", "% of cells", 1),
        Column.of(found, "highest_loss", "Highest loss", "nats", 2),
        Column.of(found, "surfaces", "Random planes", "n", 0),
        Column.of(found, "barrier_midpoint", "Barrier, midpoint", "nats", 3),
        Column.of(found, "pairs", "Pairs", "n", 0),
        Column.of(found, "loss", "Networks’ loss", "nats", 3),
        Column.of(found, "accuracy", "Networks’ accuracy", "%", 1),
    ]


def cards(treatments: Sequence[str], summary: pd.DataFrame, split: str, *, planned: int) -> str:
    """A card per treatment with its flat share, and under it its networks and the barrier between them, as HTML.

    Args:
        treatments: What the study compares, in order.
        summary: The study's summary so far.
        split: The images.
        planned: Random planes per treatment.
    """
    drawn = []
    for key, row in rows(treatments, summary).iterrows():
        value = tables.with_spread(row["flat_share"], row["flat_share_std"], 1, 1)
        done = 0 if math.isnan(row["surfaces"]) else int(row["surfaces"])
        told = f"flat share, n = {done}" if done == planned else f"{done} of {planned} planes"
        if not math.isnan(row["barrier_midpoint"]):
            told += f" · barrier {tables.with_unit(*tables.cell(row, 'barrier_midpoint'), 3, 'nats')}"
        told += tables.reached(split, tables.cell(row, "loss"), tables.cell(row, "accuracy"))
        unit = "" if math.isnan(row["flat_share"]) else ' <span class="spread">%</span>'
        drawn.append(tables.card(str(key), value + unit, told))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def strip(treatments: Sequence[str], summary: pd.DataFrame) -> str:
    """Flat shares in one line, as HTML, for lists of studies."""
    found = rows(treatments, summary)
    cells = zip(found["flat_share"], found["flat_share_std"], strict=True)
    return tables.in_line(dict(zip(found.index, cells, strict=True)), 1)
