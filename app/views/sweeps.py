"""What the pages of studies that vary one setting of linear mode connectivity have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries, theme
from app.charts import sweeps, tables
from app.charts.quantities import ACCURACY, LOSS, Quantity
from app.charts.sweeps import Place
from app.charts.tables import Column
from app.views import lmc
from app.views.lmc import Chosen

Results = Mapping[str, pa.Table]
NO_VALUE = -1.0
"""Stands for a setting that has none where rows are looked up."""


def draw(study: Mapping[str, Any], results: Results, places: Sequence[Place], varied: str) -> None:
    """Cards, chart and table of all places, with a dash or a placeholder for what is not there yet.

    Args:
        study: what is known of it.
        results: its result tables.
        places: all that is planned, setting by setting.
        varied: what is varied, with its unit.
    """
    chosen, summary = lmc.controls(study["spec"]["data"]), results["summary"].to_pandas()
    st.html(_cards(places, summary, chosen, study["spec"]["pairs"]))
    quantity, split = chosen.quantity, chosen.split
    parts.note(
        f"{quantity.key.capitalize()} barrier in {quantity.barrier_unit} on the {split} images: mean ± sample standard "
        f"deviation over pairs. Under it {split} loss and accuracy of the networks themselves."
    )
    st.subheader("Barrier of each pair", anchor=False)
    values = queries.barriers(
        results, quantity, split, chosen.which, columns=("value", "pair"), into="barrier"
    )
    title = f"{chosen.which} {split} {quantity.key} barrier ({quantity.barrier_symbol})"
    paper = _paper(places, summary) if (quantity, split, chosen.which) == (LOSS, "test", "midpoint") else {}
    drawing = sweeps.barriers(values, places, title, quantity.digits, paper) if len(values) else None
    parts.chart(drawing, sweeps.HEIGHT, "sweep")
    if paper:
        parts.note("Hollow diamonds: the paper's mean and spread (Lim et al. 2024).")
    _table(study["study"], places, summary, chosen, varied)


def brief(results: Results, places: Sequence[Place]) -> None:
    """The midpoint loss barrier of every place on the test images, in a few lines."""
    rows = _rows(places, results["summary"].to_pandas(), LOSS, "test")
    told = []
    for place, row in zip(places, rows, strict=True):
        value = f"<b>{tables.number(row['barrier_midpoint'], LOSS.digits)}</b>"
        value += f" <i>{place.heading}</i>" if place.heading else ""
        told.append((place.treatment, theme.treatment(place.treatment).label, value))
    st.html(tables.answers(told))


def exports(study: Mapping[str, Any], results: Results) -> dict[str, tuple[str, str]]:
    """What can be downloaded beside the table: file name -> (label, content)."""
    content = tables.csv(results["pairs"].to_pandas())
    return {f"{study['study']}-pairs.csv": ("Barriers of each pair (CSV)", content)}


def _rows(
    places: Sequence[Place], summary: pd.DataFrame, quantity: Quantity, split: str
) -> list[dict[str, Any]]:
    """The summary's row of every place in the unit that people read; NaN where nothing is done yet."""
    rows = tables.selected(summary, quantity, split)
    rows["value"] = rows["value"].astype(float).fillna(NO_VALUE)
    wanted = [(NO_VALUE if place.value is None else place.value, place.treatment) for place in places]
    found = rows.set_index(["value", "treatment"]).reindex(pd.MultiIndex.from_tuples(wanted))
    told: list[dict[str, Any]] = found.to_dict("records")
    return told


def _cards(places: Sequence[Place], summary: pd.DataFrame, chosen: Chosen, planned: int) -> str:
    quantity, split = chosen.quantity, chosen.split
    barriers, losses, accuracies = (_rows(places, summary, q, split) for q in (quantity, LOSS, ACCURACY))
    drawn = []
    for place, row, loss, accuracy in zip(places, barriers, losses, accuracies, strict=True):
        name = f"barrier_{chosen.which}"
        value = tables.with_spread(row[name], row[f"{name}_std"], quantity.digits, quantity.digits)
        done = 0 if math.isnan(row["pairs"]) else int(row["pairs"])
        told = f"n = {done}" if done == planned else f"{done} of {planned} pairs"
        if done:
            told += f" · loss {tables.number(loss['endpoint'], LOSS.digits)}"
            told += f", accuracy {tables.number(accuracy['endpoint'], ACCURACY.digits)} %"
        label = theme.treatment(place.treatment).label
        heading = f"{label}, {place.heading}" if place.heading else label
        drawn.append(tables.card(place.treatment, value, told, heading))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _paper(places: Sequence[Place], summary: pd.DataFrame) -> dict[Place, tuple[float, float]]:
    rows = _rows(places, summary, LOSS, "test")
    found = {
        place: (row["paper_barrier_midpoint"], row["paper_barrier_midpoint_std"])
        for place, row in zip(places, rows, strict=True)
    }
    return {place: stated for place, stated in found.items() if not math.isnan(stated[0])}


def _table(study: str, places: Sequence[Place], summary: pd.DataFrame, chosen: Chosen, varied: str) -> None:
    """The numbers of every place, and the buttons that hand them out."""
    told = _columns(places, summary, chosen, varied)
    treatments = [place.treatment for place in places]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.subheader("Table", anchor=False, width="stretch")
        full = "All splits, loss and accuracy, at full precision; in nats, and accuracy from 0 to 1."
        parts.download("CSV", tables.csv(summary), f"{study}.csv", full)
        note = f"{chosen.split} {chosen.quantity.key}: mean and sample standard deviation over pairs"
        latex = tables.booktabs(treatments, told, note)
        parts.download(
            "LaTeX", latex, f"{study}-{chosen.split}-{chosen.quantity.key}.tex", "This table, for booktabs."
        )
    st.html(tables.table(treatments, told))


def _columns(places: Sequence[Place], summary: pd.DataFrame, chosen: Chosen, varied: str) -> list[Column]:
    quantity, split = chosen.quantity, chosen.split
    rows, losses, accuracies = (_rows(places, summary, q, split) for q in (quantity, LOSS, ACCURACY))

    def column(title: str, unit: str, some: list[dict[str, Any]], name: str, digits: int) -> Column:
        cells = [(float(row[name]), float(row.get(f"{name}_std", math.nan))) for row in some]
        return Column(title, unit, cells, digits, digits)

    title, _, unit = varied.partition(" (")
    values = [(math.nan if place.value is None else place.value, math.nan) for place in places]
    whole = all(place.value is None or float(place.value).is_integer() for place in places)
    found = [Column(title, unit.rstrip(")"), values, 0 if whole else 2, 0)]
    found.append(
        column("Barrier, midpoint", quantity.barrier_unit, rows, "barrier_midpoint", quantity.digits)
    )
    if any(not math.isnan(row["paper_barrier_midpoint"]) for row in rows):
        found.append(column("Paper, midpoint", quantity.barrier_unit, rows, "paper_barrier_midpoint", 2))
    return [
        *found,
        column("Barrier, maximum", quantity.barrier_unit, rows, "barrier_maximum", quantity.digits),
        column(f"{split.capitalize()} loss", LOSS.unit, losses, "endpoint", LOSS.digits),
        column(f"{split.capitalize()} accuracy", ACCURACY.unit, accuracies, "endpoint", ACCURACY.digits),
        column("Pairs", "n", rows, "pairs", 0),
    ]
