"""Tables for the terminal: a study's result, lists of studies and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs import registry
from jobs.headline import Rows

STATE_STYLES = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
    "cancelling": "yellow",
    "cancelled": "yellow",
}


def result(kind: str, tables: Mapping[str, Rows]) -> Group:
    """The table that answers a study's question and what it means, as the study itself puts it; fits 80 columns."""
    found = registry.studies()[kind].headline(tables).fitted()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    lines = max(heading.count("\n") for heading in found.columns)
    for place, heading in enumerate(found.columns):
        low = "\n" * (lines - heading.count("\n")) + heading
        table.add_column(low, justify="right" if place else "left", no_wrap=True)
    for row in found.rows:
        table.add_row(*map(Text, row))
    return Group(table, Text(found.caption, style="table.caption"))


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
