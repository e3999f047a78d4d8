"""Tables for the terminal: a study's result, lists of studies and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]
Result = Mapping[str, Sequence[Row]]
"""A study's result tables by name, as rows."""

STATE_STYLES = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
    "cancelling": "yellow",
    "cancelled": "yellow",
}


def result(kind: str, tables: Result) -> Table:
    """The table that answers a study's question; of a kind that has no layout here, its first table as it is."""
    if kind == "lmc":
        return lmc(tables["summary"])
    name, rows = next(iter(tables.items()))
    return plain(rows, title=name)


def lmc(summary: Sequence[Row]) -> Table:
    """One row per treatment: loss barriers and endpoints on the test set; fits 80 columns."""
    test = {(row["label"], row["quantity"]): row for row in summary if row["split"] == "test"}
    compared = any(row["paper_barrier_midpoint"] is not None for row in test.values())
    second = "paper_barrier_midpoint" if compared else "barrier_maximum"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, caption_justify="left")
    table.add_column("\ntreatment", no_wrap=True)
    headings = ("barrier\nmidpoint", "paper\nmidpoint" if compared else "barrier\nmaximum")
    for heading in (*headings, "endpoint\nloss", "endpoint\naccuracy", "\npairs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label in dict.fromkeys(label for label, _ in test):
        loss, accuracy = test[label, "loss"], test[label, "accuracy"]
        barriers = (spread(loss, "barrier_midpoint"), spread(loss, second))
        ends = (spread(loss, "endpoint"), spread(accuracy, "endpoint"))
        table.add_row(label, *barriers, *ends, str(loss["pairs"]))
    table.caption = (
        "Test set. Barriers are rises of the loss, mean ± sample standard deviation over\n"
        "disjoint pairs; endpoints are over the networks of the pairs."
    )
    return table


def spread(row: Row, name: str, digits: int = 3) -> str:
    """A mean with its standard deviation, "0.621 ± 0.094"; "–" where nothing was measured."""
    mean, std = row[name], row[f"{name}_std"]
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def plain(rows: Sequence[Row], title: str = "") -> Table:
    """Rows as they are, numbers to the right."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def listing(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A list without frame, states in their colours; where it is too wide, titles and errors are cut."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=name not in {"title", "error"})
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> Text:
    text = "" if value is None else " ".join(str(value).split())
    return Text(text, style=STATE_STYLES.get(text, ""), no_wrap=True, overflow="ellipsis")
