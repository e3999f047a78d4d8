"""What the pages of studies that vary one setting of linear mode connectivity have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries, theme, wording
from app.charts import sweeps, tables
from app.charts.quantities import ACCURACY, CALIBRATED, LOSS, Quantity
from app.charts.sweeps import Place
from app.charts.tables import Column
from app.views import lmc
from app.views.lmc import Chosen

Results = Mapping[str, pa.Table]
TABLES = {"summary": "Barriers of each setting and treatment", "pairs": "Barriers of each pair"}
"""What the result tables are called."""
NO_VALUE = -1.0
"""Stands for a setting that has none where rows are looked up."""


@dataclass(frozen=True)
class Sweep:
    """A study of linear mode connectivity that varies one setting; its methods are the functions of its view."""

    varied: str
    """What is varied, as the heading of a column."""
    unit: str
    """Stands below that heading."""
    note: str
    """What there is to say of the setting and of the paper, as HTML."""
    places: Callable[[Mapping[str, Any]], list[Place]]
    """All that a study's spec plans, setting by setting."""

    def draw(self, study: Mapping[str, Any], results: Results) -> None:
        """Cards, chart and table of all places, with a dash or a placeholder for what is not there yet."""
        spec, summary = study["spec"], results["summary"].to_pandas()
        # a study of an earlier version knows of no temperatures
        chosen = lmc.controls(spec["data"], calibrated=spec.get("temperature", False))
        places = self.places(spec)
        st.html(_cards(places, summary, chosen, spec["pairs"]))
        parts.note(
            f"{chosen.quantity.key.capitalize()} barrier in {chosen.quantity.barrier_unit} on the {chosen.split} "
            f"{wording.inputs(spec['data'])}: mean ± sample standard deviation over pairs. Under it {chosen.split} loss and "
            "accuracy of the networks themselves."
        )
        if chosen.quantity is CALIBRATED:
            parts.note(lmc.calibration(spec["data"]))
        _chart(results, places, chosen)
        parts.table(
            [place.treatment for place in places],
            _columns(places, summary, chosen, self),
            summary,
            study["study"],
            hint=lmc.FULL,
            note=f"{chosen.split} {chosen.quantity.key}: mean and sample standard deviation over pairs",
            chosen=f"{chosen.split}-{chosen.quantity.key}",
        )
        parts.note(self.note)

    def brief(self, study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
        """The midpoint loss barrier of every place on the test split, in a few lines."""
        del large
        places = self.places(study["spec"])
        rows = _rows(places, results["summary"].to_pandas(), LOSS, "test")
        told = []
        for place, barrier in zip(places, rows["barrier_midpoint"], strict=True):
            value = f"<b>{tables.number(barrier, LOSS.digits)}</b>"
            value += f" <i>{place.heading}</i>" if place.heading else ""
            told.append((place.treatment, theme.treatment(place.treatment).label, value))
        st.html(tables.answers(told))


def _chart(results: Results, places: Sequence[Place], chosen: Chosen) -> None:
    """Every pair's barrier; its place is kept until one is done."""
    st.subheader("Barrier of each pair", anchor=False)
    quantity, split = chosen.quantity, chosen.split
    values = queries.barriers(
        results, quantity, split, chosen.which, columns=("value", "pair"), into="barrier"
    )
    title = f"{chosen.which} {split} {quantity.key} barrier ({quantity.barrier_symbol})"
    compared = (quantity, split, chosen.which) == (LOSS, "test", "midpoint")
    paper = _paper(places, results["summary"].to_pandas()) if compared else {}
    drawing = sweeps.barriers(values, places, title, quantity.digits, paper) if len(values) else None
    parts.chart(drawing, sweeps.HEIGHT, "sweep")
    parts.note(
        "A dot is a pair, a bar the mean, a line one sample standard deviation to either side."
        + (" Hollow diamonds: the paper's mean and spread (Lim et al. 2024)." if paper else "")
    )


def _rows(places: Sequence[Place], summary: pd.DataFrame, quantity: Quantity, split: str) -> pd.DataFrame:
    """The summary's row of every place in the unit that people read; NaN where nothing is done yet."""
    rows = tables.selected(summary, quantity, split)
    rows["value"] = rows["value"].astype(float).fillna(NO_VALUE)
    wanted = [(NO_VALUE if place.value is None else place.value, place.treatment) for place in places]
    return rows.set_index(["value", "treatment"]).reindex(pd.MultiIndex.from_tuples(wanted))


def _cards(places: Sequence[Place], summary: pd.DataFrame, chosen: Chosen, planned: int) -> str:
    quantity, split = chosen.quantity, chosen.split
    barriers, losses, accuracies = (
        _rows(places, summary, q, split).to_dict("records") for q in (quantity, LOSS, ACCURACY)
    )
    drawn = []
    for place, row, loss, accuracy in zip(places, barriers, losses, accuracies, strict=True):
        barrier = tables.cell(row, f"barrier_{chosen.which}")
        value = tables.with_spread(*barrier, quantity.digits, quantity.digits)
        done = 0 if math.isnan(row["pairs"]) else int(row["pairs"])
        told = f"n = {done}" if done == planned else f"{done} of {planned} pairs"
        told += tables.reached(split, *(tables.cell(reached, "endpoint") for reached in (loss, accuracy)))
        label = theme.treatment(place.treatment).label
        heading = f"{label}, {place.heading}" if place.heading else label
        drawn.append(tables.card(place.treatment, value, told, heading))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _paper(places: Sequence[Place], summary: pd.DataFrame) -> dict[Place, tuple[float, float]]:
    rows = _rows(places, summary, LOSS, "test").to_dict("records")
    found = {
        place: (row["paper_barrier_midpoint"], row["paper_barrier_midpoint_std"])
        for place, row in zip(places, rows, strict=True)
    }
    return {place: stated for place, stated in found.items() if not math.isnan(stated[0])}


def _columns(places: Sequence[Place], summary: pd.DataFrame, chosen: Chosen, sweep: Sweep) -> list[Column]:
    quantity, split, unit = chosen.quantity, chosen.split, chosen.quantity.barrier_unit
    rows, losses, accuracies = (_rows(places, summary, q, split) for q in (quantity, LOSS, ACCURACY))
    settings = pd.DataFrame({"value": [math.nan if place.value is None else place.value for place in places]})
    whole = all(place.value is None or float(place.value).is_integer() for place in places)
    found = [
        Column.of(settings, "value", sweep.varied, sweep.unit, 0 if whole else 2),
        Column.of(rows, "barrier_midpoint", "Barrier, midpoint", unit, quantity.digits),
    ]
    if rows["paper_barrier_midpoint"].notna().any():
        found.append(Column.of(rows, "paper_barrier_midpoint", "Paper, midpoint", unit, 2))
    return [
        *found,
        Column.of(rows, "barrier_maximum", "Barrier, maximum", unit, quantity.digits),
        *tables.endpoints(losses, accuracies, split),
        Column.of(rows, "pairs", "Pairs", "n", 0),
    ]
