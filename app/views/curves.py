"""Results of a study of low paths: straight and curved paths on one scale, and what moving single layers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries, wording
from app.charts import lanes, paths, tables
from app.charts.quantities import ACCURACY, LOSS, QUANTITIES, Quantity
from app.charts.tables import Column
from app.views import lmc
from jobs.studies.curves_results import FORMS

Results = Mapping[str, pa.Table]
HEADINGS = {"straight": "On the straight line", "curve": "On the Bezier curve"}
ORDERS = {
    "single": "One layer alone",
    "bottom": "All from the input up to it",
    "top": "All from it up to the output",
}
MOVED = {"averaged": "rise_midway", "exchanged": "rise_end"}
"""Where the layers that move are: halfway between both networks, or those of the second."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    with st.container(horizontal=True, gap="medium"):
        split = parts.choice("Images", "split", ["test", "train"])
        quantity = QUANTITIES[parts.choice("Quantity", "quantity", list(QUANTITIES))]
    summary = results["summary"].to_pandas()
    st.html(cards(spec["treatments"], summary, quantity, split, planned=spec["pairs"]))
    what = "drop of the accuracy below" if quantity is ACCURACY else "rise of the loss above"
    parts.note(
        f"Highest {what} the straight line between the ends' values, in {quantity.barrier_unit} on the {split} images, "
        "on the Bezier curve and on the straight line between the two networks of a pair: mean ± sample standard deviation "
        f"over pairs. Under it {split} loss and accuracy of the networks themselves, over networks."
    )
    _paths(spec, results, quantity, split)
    st.subheader("Layer by layer", anchor=False)
    layers(spec["treatments"], spec["orders"], results["layers"], quantity, split)
    _table(study["study"], spec, summary, quantity, split)


BRIEF = "Highest rise of the test loss on the Bezier curve (nats)"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        st.html(cards(spec["treatments"], summary, LOSS, "test", planned=spec["pairs"]))
        return
    rows = _rows(spec["treatments"], summary, LOSS, "test", "curve")
    cells = zip(rows["barrier_maximum"], rows["barrier_maximum_std"], strict=True)
    st.html(tables.in_line(dict(zip(rows.index, cells, strict=True)), LOSS.digits))


TABLES = {
    "summary": "Barriers of each treatment",
    "pairs": "Barriers of each pair",
    "layers": "Rises of each layer",
    "paths": "All points of whole paths",
    "layer_points": "All points of layer-wise paths",
}
"""What the result tables are called."""


def _rows(
    treatments: Sequence[str], summary: pd.DataFrame, quantity: Quantity, split: str, form: str
) -> pd.DataFrame:
    """The summary of one form of path by treatment, in the unit that people read; NaN where nothing is done yet."""
    return tables.by_treatment(treatments, summary[summary["form"] == form], quantity, split)


def cards(
    treatments: Sequence[str], summary: pd.DataFrame, quantity: Quantity, split: str, *, planned: int
) -> str:
    """A card per treatment with the highest rise on its curves, under it that on straight lines and its networks, as HTML."""
    curve, straight = (_rows(treatments, summary, quantity, split, form) for form in ("curve", "straight"))
    losses, accuracies = (_rows(treatments, summary, ends, split, "straight") for ends in (LOSS, ACCURACY))
    drawn = []
    for key in treatments:
        values = [
            tables.with_spread(*tables.cell(at.loc[key], "barrier_maximum"), quantity.digits, quantity.digits)
            for at in (curve, straight)
        ]
        done = curve.loc[key, "pairs"]
        known = 0 if pd.isna(done) else int(done)
        counted = f"n = {known}" if known == planned else f"{known} of {planned} pairs"
        told = f"straight line {values[1]} · {counted}"
        told += tables.reached(
            split, *(tables.cell(rows.loc[key], "endpoint") for rows in (losses, accuracies))
        )
        drawn.append(tables.card(key, values[0], told))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _paths(spec: Mapping[str, Any], results: Results, quantity: Quantity, split: str) -> None:
    """Both forms beside each other on one scale."""
    points = queries.paths(results, quantity, split, columns=("form",))
    scale = paths.domain(points, quantity) if len(points) else None
    for form, column in zip(FORMS, st.columns(2, gap="medium"), strict=True):
        own = points[points["form"] == form]
        with column:
            st.subheader(HEADINGS[form], anchor=False)
            words = "Bezier curve" if form == "curve" else "straight path"
            drawing = paths.interpolation(own, quantity, split, scale, words) if len(own) else None
            parts.chart(drawing, paths.height(len(spec["treatments"])), f"paths-{form}")
    parts.note(
        f"{bent(spec['bends'], spec['bend']['epochs'])} Lines are means over pairs, bands one sample standard deviation, "
        "hairlines single pairs; both charts share one scale."
    )


def bent(bends: int, epochs: int) -> str:
    """What a Bezier curve is and how its bends were trained, as HTML."""
    between = "one bend between them is" if bends == 1 else f"{bends} bends between them are"
    return (
        f"<b>Bezier curve</b> (Garipov et al. 2018): its ends are the two networks and stay as they are; {between} trained "
        f"for {wording.count(epochs, 'epoch')} to lower the train loss at points drawn uniformly from the curve. Weights that "
        "are fixed stay fixed."
    )


def layers(
    treatments: Sequence[str], orders: Sequence[str], table: pa.Table, quantity: Quantity, split: str
) -> None:
    """What moving layers does, a panel for each order, a row for each layer.

    Args:
        treatments: From top to bottom within a row.
        orders: Which layers move at a time.
        table: What `jobs.studies.curves_results.layers` makes.
        quantity: What of it is drawn.
        split: The images.
    """
    moved = parts.choice("The layers are", "moved", list(MOVED))
    frame = queries.layers(table, quantity, split, MOVED[moved])
    rows = {
        str(layer): name for layer, name in frame[["layer", "name"]].drop_duplicates().itertuples(index=False)
    }
    panels = {ORDERS[order]: frame[frame["order"] == order] for order in orders}
    change = "drop of" if quantity is ACCURACY else "rise of"
    axis = lanes.Axis(
        f"{change} {split} {quantity.key} ({quantity.barrier_symbol})", quantity.digits, rule=0.0
    )
    told = [alt.Tooltip("name:N", title="layer"), alt.Tooltip("pair:O", title="pair")]
    drawing = lanes.figure(panels, rows, treatments, axis, told) if len(frame) else None
    parts.chart(
        drawing, lanes.height(len(rows) or 4, len(treatments)), "layers", width="content", legend=treatments
    )
    where = "halfway between both networks" if moved == "averaged" else "those of the second network"
    parts.note(
        f"<b>Layer-wise paths</b> (Adilova et al. 2024): the layers that move are {where}, all others the first network's; "
        f"how far the {quantity.key} is then from that of the first network. A dot is a pair, a bar the mean; all panels "
        "share one scale. The last row of “from the input” and the first of “to the output” move all layers."
    )


def _table(
    study: str, spec: Mapping[str, Any], summary: pd.DataFrame, quantity: Quantity, split: str
) -> None:
    parts.table(
        spec["treatments"],
        columns(spec["treatments"], summary, quantity, split),
        summary,
        study,
        hint=lmc.FULL,
        note=f"{split} {quantity.key} on paths: mean and sample standard deviation over pairs",
        chosen=f"{split}-{quantity.key}",
    )


def columns(treatments: Sequence[str], summary: pd.DataFrame, quantity: Quantity, split: str) -> list[Column]:
    """What is told of each treatment: both barriers on both forms of path, the endpoints, the number of pairs."""
    found = []
    by_form = {form: _rows(treatments, summary, quantity, split, form) for form in FORMS}
    for form, words in (("straight", "Straight"), ("curve", "Curve")):
        for which in ("midpoint", "maximum"):
            name, title = f"barrier_{which}", f"{words}, {which}"
            found.append(Column.of(by_form[form], name, title, quantity.barrier_unit, quantity.digits))
    ends = (_rows(treatments, summary, reached, split, "straight") for reached in (LOSS, ACCURACY))
    found += tables.endpoints(*ends, split)
    return [*found, Column.of(by_form["straight"], "pairs", "Pairs", "n", 0)]
