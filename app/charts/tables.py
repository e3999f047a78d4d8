"""The table of results: for the page, for a spreadsheet and for a paper."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet as pq

from app import theme
from app.charts.quantities import ACCURACY, CALIBRATED, LOSS, Quantity

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column of numbers: each cell a mean and its sample standard deviation, NaN where there is none."""

    title: str
    unit: str
    cells: list[tuple[float, float]]
    digits: int
    spread_digits: int
    least: float = 0.0
    """Less than this, but not below zero, is told as less than this: a small p, say."""

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        name: str,
        title: str,
        unit: str,
        digits: int,
        spread_digits: int | None = None,
        least: float = 0.0,
    ) -> Column:
        """A column of a frame whose rows are those of the table.

        Args:
            rows: Has the means in column `name` and, where they have spreads, these in `{name}_std`.
            name: The column.
            title: Its heading.
            unit: What stands below that.
            digits: Decimals of means.
            spread_digits: Decimals of spreads; as many where none are given.
            least: What is less is told as less than this.
        """
        spreads = rows.get(f"{name}_std", pd.Series(math.nan, rows.index))
        cells = list(zip(rows[name].astype(float), spreads.astype(float), strict=True))
        spreads_told = digits if spread_digits is None else spread_digits
        return cls(title, unit, cells, digits, spreads_told, least)

    def told(self, place: int) -> str:
        """A cell as HTML."""
        if self._little(place):
            return f"&lt; {number(self.least, self.digits)}"
        return with_spread(*self.cells[place], self.digits, self.spread_digits)

    def latex(self, place: int) -> str:
        """A cell for a paper."""
        if self._little(place):
            return f"$< {self.least:.{self.digits}f}$"
        return _math(*self.cells[place], self.digits, self.spread_digits)

    def _little(self, place: int) -> bool:
        return 0 <= self.cells[place][0] < self.least


def selected(summary: pd.DataFrame, quantity: Quantity, split: str) -> pd.DataFrame:
    """The rows of one split and quantity, in the unit that people read."""
    rows = summary[(summary["split"] == split) & (summary["quantity"] == quantity.key)].copy()
    measured = [name for name in rows.columns if name.startswith(("barrier", "endpoint", "paper"))]
    rows[measured] = rows[measured].astype(float) * quantity.factor
    return rows


def by_treatment(
    treatments: Sequence[str], summary: pd.DataFrame, quantity: Quantity, split: str
) -> pd.DataFrame:
    """What `selected` gives by treatment, in the order asked for; NaN where nothing is done yet."""
    return selected(summary, quantity, split).set_index("treatment").reindex(list(treatments))


def cell(row: Mapping[str, Any], name: str) -> tuple[float, float]:
    """A mean and its spread, out of their columns of a row."""
    return row[name], row[f"{name}_std"]


def reached(split: str, loss: tuple[float, float], accuracy: tuple[float, float]) -> str:
    """What networks reach, mean and spread, as two lines of HTML that end a card: loss in nats, accuracy in %.

    Dashes stand there before anything is done, so that a card keeps its height.
    """
    lines = (
        f"<br>{split} {quantity.key} {with_unit(*value, quantity.digits, quantity.unit)}"
        for value, quantity in ((loss, LOSS), (accuracy, ACCURACY))
    )
    return "".join(lines)


def endpoints(losses: pd.DataFrame, accuracies: pd.DataFrame, split: str) -> list[Column]:
    """Columns of what the networks that paths join reach, from a summary's rows of both quantities."""
    return [
        Column.of(rows, "endpoint", f"{split.capitalize()} {quantity.key}", quantity.unit, quantity.digits)
        for rows, quantity in ((losses, LOSS), (accuracies, ACCURACY))
    ]


def columns(treatments: Sequence[str], summary: pd.DataFrame, quantity: Quantity, split: str) -> list[Column]:
    """What is told of each treatment: barriers, the paper's where it compares, endpoints, number of pairs."""
    rows, losses, accuracies = (
        by_treatment(treatments, summary, chosen, split) for chosen in (quantity, LOSS, ACCURACY)
    )
    barrier, digits = quantity.barrier_unit, quantity.digits
    found = [Column.of(rows, "barrier_midpoint", "Barrier, midpoint", barrier, digits)]
    if rows["paper_barrier_midpoint"].notna().any():
        found.append(Column.of(rows, "paper_barrier_midpoint", "Paper, midpoint", barrier, 3, 2))
    found.append(Column.of(rows, "barrier_maximum", "Barrier, maximum", barrier, digits))
    if quantity is CALIBRATED:
        found.append(
            Column.of(rows, "endpoint", f"{split.capitalize()} {quantity.key}", quantity.unit, digits)
        )
    found += endpoints(losses, accuracies, split)
    return [*found, Column.of(rows, "pairs", "Pairs", "n", 0)]


def table(treatments: Sequence[str], told: Sequence[Column]) -> str:
    """A row per treatment as an HTML table; columns hold a cell for each, with a dash for what is not done yet."""
    heads = _cells((f"{escape(c.title)}<small>{escape(c.unit)}</small>" for c in told), "th")
    lines = [f'<tr><th scope="col">Treatment<small>&nbsp;</small></th>{heads}</tr>']
    for place, key in enumerate(treatments):
        cells = _cells((c.told(place) for c in told), "td")
        name = f"{swatch(key)}{escape(theme.treatment(key).label)}"
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    content = f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody>"
    return f'<div class="lab-table-frame"><table class="lab-table">{content}</table></div>'


def cards(
    treatments: Iterable[str],
    summary: pd.DataFrame,
    quantity: Quantity,
    split: str,
    which: str,
    *,
    planned: int,
) -> str:
    """A card per treatment with its mean barrier, n and what its networks reach, as HTML; a dash where nothing is done yet.

    Args:
        treatments: What the study compares, in order.
        summary: The study's summary so far.
        quantity: What the barrier is in.
        split: The images.
        which: "midpoint" or "maximum".
        planned: Pairs per treatment.
    """
    rows, losses, accuracies = (
        selected(summary, chosen, split).set_index("treatment").to_dict("index")
        for chosen in (quantity, LOSS, ACCURACY)
    )
    drawn = []
    for key in treatments:
        value, told, ends = MISSING, f"0 of {planned} pairs", [(math.nan, math.nan)] * 2
        if row := rows.get(key):
            value = with_spread(*cell(row, f"barrier_{which}"), quantity.digits, quantity.digits)
            told = f"n = {row['pairs']}" if row["pairs"] == planned else f"{row['pairs']} of {planned} pairs"
            ends = [cell(found[key], "endpoint") for found in (losses, accuracies)]
        drawn.append(card(key, value, told + reached(split, *ends)))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def card(treatment: str, value: str, told: str, name: str = "") -> str:
    """A treatment's number with what there is to say of it, both as HTML; `name`, if given, is another heading."""
    heading = escape(name or theme.treatment(treatment).label)
    return (
        f'<section class="lab-card"><p class="name">{swatch(treatment)}{heading}</p>'
        f'<p class="value">{value}</p><p class="note">{told}</p></section>'
    )


def strip(treatments: Iterable[str], summary: pd.DataFrame, quantity: Quantity, split: str) -> str:
    """Midpoint barriers with their spread in one line, as HTML, for lists of studies."""
    rows = by_treatment(treatments, summary, quantity, split)
    cells = zip(rows["barrier_midpoint"], rows["barrier_midpoint_std"], strict=True)
    return in_line(dict(zip(rows.index, cells, strict=True)), quantity.digits)


def in_line(cells: Mapping[str, tuple[float, float]], digits: int) -> str:
    """A mean with its spread per treatment beside each other, as HTML."""
    told = []
    for key, (mean, spread) in cells.items():
        value = f"<b>{number(mean, digits)}</b>"
        if math.isfinite(spread):
            value += f" <i>± {number(spread, digits)}</i>"
        told.append((key, theme.treatment(key).label, value))
    return answers(told)


def answers(told: Iterable[tuple[str, str, str]]) -> str:
    """Answers beside each other, as HTML: the treatment, the answer's name, and its value as HTML."""
    parts = (
        f"<span><small>{swatch(key)}{escape(name)}</small><span>{value}</span></span>"
        for key, name, value in told
    )
    return f'<div class="lab-strip">{"".join(parts)}</div>'


def booktabs(treatments: Sequence[str], told: Sequence[Column], note: str) -> str:
    """A row per treatment as a `booktabs` table under a comment; columns hold a cell for each."""
    heads = [f"{c.title} ({c.unit})".replace("%", r"\%") for c in told]
    lines = [" & ".join(["Treatment", *heads])]
    for place, key in enumerate(treatments):
        cells = [c.latex(place) for c in told]
        lines.append(" & ".join([theme.treatment(key).latex, *cells]))
    rows = [rf"{line} \\" for line in lines]
    body = "\n".join([r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"])
    return f"% {note}\n\\begin{{tabular}}{{l{'r' * len(told)}}}\n{body}\n\\end{{tabular}}\n"


def csv(frame: pd.DataFrame) -> str:
    """A whole table at full precision, in stored units: nats, and accuracy from 0 to 1."""
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def parquet(table: pa.Table) -> bytes:
    """A whole table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as a compressed NumPy archive."""
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def number(value: float, digits: int) -> str:
    """A number with a fixed count of decimals and a typographic minus; a dash for NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def with_spread(mean: float, std: float, digits: int, spread_digits: int) -> str:
    """Mean and sample standard deviation as HTML; a single measurement has no spread."""
    if math.isnan(mean) or math.isnan(std):
        return number(mean, digits)
    return f'{number(mean, digits)} <span class="spread">± {number(std, spread_digits)}</span>'


def with_unit(mean: float, std: float, digits: int, unit: str) -> str:
    """`with_spread` with its unit; a dash alone for NaN."""
    told = with_spread(mean, std, digits, digits)
    return told if math.isnan(mean) else f"{told} {unit}"


def swatch(treatment: str) -> str:
    """A square in the treatment's colour, as HTML."""
    return f'<i class="lab-swatch" style="background:{theme.treatment(treatment).colour}"></i>'


def legend(treatments: Iterable[str]) -> str:
    """Treatments by their colours in one line, as HTML, for charts that have no room for their names."""
    told = (f"<span>{swatch(key)}{escape(theme.treatment(key).label)}</span>" for key in treatments)
    return f'<p class="lab-legend">{"".join(told)}</p>'


def _cells(texts: Iterable[str], tag: str) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    return "".join(f'<{tag} class="number"{scope}>{text}</{tag}>' for text in texts)


def _math(mean: float, std: float, digits: int, spread_digits: int) -> str:
    if math.isnan(mean):
        return "--"
    return f"${mean:.{digits}f}$" if math.isnan(std) else rf"${mean:.{digits}f} \pm {std:.{spread_digits}f}$"
