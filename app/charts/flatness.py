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

    def column(title: str, unit: str, name: str, digits: int) -> Column:
        spread = found.get(f"{name}_std", [math.nan] * len(found))
        cells = [(float(mean), float(std)) for mean, std in zip(found[name], spread, strict=True)]
        return Column(title, unit, cells, digits, digits)

    return [
        column("Flat share", "% of cells", "flat_share", 1),
        column("Highest loss", "nats", "highest_loss", 2),
        column("Random planes", "n", "surfaces", 0),
        column("Barrier, midpoint", "nats", "barrier_midpoint", 3),
        column("Pairs", "n", "pairs", 0),
        column("Networks’ loss", "nats", "loss", 3),
        column("Networks’ accuracy", "%", "accuracy", 1),
    ]


def cards(treatments: Sequence[str], summary: pd.DataFrame, *, planned: int) -> str:
    """A card per treatment with its flat share, and under it the barrier between its networks, as HTML.

    Args:
        treatments: What the study compares, in order.
        summary: The study's summary so far.
        planned: Random planes per treatment.
    """
    drawn = []
    for key, row in rows(treatments, summary).iterrows():
        value = tables.with_spread(row["flat_share"], row["flat_share_std"], 1, 1)
        done = 0 if math.isnan(row["surfaces"]) else int(row["surfaces"])
        told = f"flat share, n = {done}" if done == planned else f"{done} of {planned} planes"
        if not math.isnan(row["barrier_midpoint"]):
            barrier = tables.with_spread(row["barrier_midpoint"], row["barrier_midpoint_std"], 3, 3)
            told += f" · barrier {barrier} nats"
        unit = "" if math.isnan(row["flat_share"]) else ' <span class="spread">%</span>'
        drawn.append(tables.card(str(key), value + unit, told))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def strip(treatments: Sequence[str], summary: pd.DataFrame) -> str:
    """Flat shares in one line, as HTML, for lists of studies."""
    found = rows(treatments, summary)
    cells = zip(found["flat_share"], found["flat_share_std"], strict=True)
    return tables.in_line(dict(zip(found.index, cells, strict=True)), 1)
