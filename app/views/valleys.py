"""Results of a study of valleys: slices through networks, how lopsided they are, and the Hessian's spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries
from app.charts import lanes, slices, tables
from app.charts.quantities import LOSS, QUANTITIES
from app.charts.tables import Column
from symcore.data.sources import SOURCES

Results = Mapping[str, pa.Table]
Content = str | Callable[[], bytes]
LENGTHS = "weights’ lengths"
DIRECTIONS = {
    "gaussian": ("Normal numbers", LENGTHS),
    "uniform": ("Uniform in [0, 1]", LENGTHS),
    "sign": ("|normal| with each weight’s sign", LENGTHS),
    "noise": ("Noise of SGD", LENGTHS),
    "between": ("To the next network, at 1", "distances"),
    "average": ("From the weight average to the end, at 1", "distances"),
}
"""Directions in words, and the unit of positions."""
SHORT = {
    "gaussian": "normal",
    "uniform": "uniform",
    "sign": "sign(w) |normal|",
    "noise": "noise of SGD",
    "between": "to the next network",
    "average": "average to end",
}


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    summary = results["summary"].to_pandas()
    st.html(cards(spec["treatments"], summary, planned=spec["networks"]))
    parts.note(
        "Largest eigenvalue of the Hessian of the train loss, in nats per squared unit of weight, over the weights that are "
        "trained: mean ± sample standard deviation over networks."
    )
    _slices(spec, results)
    _asymmetry(spec, results)
    _spectrum(spec, results)
    _table(study["study"], spec, summary)


BRIEF = "Largest eigenvalue of the Hessian at trained networks"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        st.html(cards(spec["treatments"], summary, planned=spec["networks"]))
        return
    rows = _rows(spec["treatments"], summary)
    cells = zip(rows["network_eigenvalue"], rows["network_eigenvalue_std"], strict=True)
    st.html(tables.in_line(dict(zip(rows.index, cells, strict=True)), 2))


def exports(study: Mapping[str, Any], results: Results) -> dict[str, tuple[str, Content]]:
    """What can be downloaded beside the table: file name -> (label, content or what makes it)."""
    name, points = study["study"], results["slices"]
    return {
        f"{name}-valleys.csv": ("Numbers of each slice (CSV)", tables.csv(results["valleys"].to_pandas())),
        f"{name}-curvature.csv": (
            "Eigenvalues and traces (CSV)",
            tables.csv(results["curvature"].to_pandas()),
        ),
        f"{name}-slices.csv": ("All points of slices (CSV)", lambda: tables.csv(points.to_pandas()).encode()),
        f"{name}-slices.parquet": ("All points of slices (Parquet)", lambda: tables.parquet(points)),
    }


def _rows(treatments: Sequence[str], summary: pd.DataFrame) -> pd.DataFrame:
    """The summary by treatment; NaN where nothing is done yet."""
    return summary.set_index("treatment").drop(columns="label").astype(float).reindex(list(treatments))


def cards(treatments: Sequence[str], summary: pd.DataFrame, *, planned: int) -> str:
    """A card per treatment with its largest eigenvalue, and under it that midway between networks, as HTML."""
    drawn = []
    for key, row in _rows(treatments, summary).iterrows():
        value = tables.with_spread(row["network_eigenvalue"], row["network_eigenvalue_std"], 2, 2)
        midway = tables.with_spread(row["midpoint_eigenvalue"], row["midpoint_eigenvalue_std"], 2, 2)
        known = 0 if math.isnan(row["networks"]) else int(row["networks"])
        counted = f"n = {known}" if known == planned else f"{known} of {planned} networks"
        drawn.append(tables.card(str(key), value, f"largest eigenvalue, {counted} · midway {midway}"))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _slices(spec: Mapping[str, Any], results: Results) -> None:
    """A panel per direction, all on one scale."""
    st.subheader("Slices through networks", anchor=False)
    with st.container(horizontal=True, gap="medium"):
        split = parts.choice("Images", "split", ["train", "test"])
        quantity = QUANTITIES[parts.choice("Quantity", "quantity", list(QUANTITIES))]
        log = quantity is LOSS and parts.choice("Scale", "scale", ["log", "linear"]) == "log"
    points = queries.slices(results["slices"], quantity, split)
    panels = {name: DIRECTIONS[name] for name in spec["directions"]}
    st.html(tables.legend(spec["treatments"]))
    drawing = slices.figure(points, panels, quantity, split, log=log) if len(points) else None
    parts.chart(drawing, slices.height(len(panels)), "slices", width="content")
    kept = min(spec["snapshots"], spec["training"]["epochs"])
    of = SOURCES[spec["data"]].sizes
    images = " and ".join(
        f"{min(spec['images'] or of[name], of[name]):,} of {of[name]:,} {name}" for name in ("train", "test")
    )
    parts.note(
        f"Hairlines are single slices, thick lines their means over {spec['networks']} networks"
        f" (times {spec['draws']} draws where a direction is random); all panels share one scale. Positions are in lengths of "
        "a network’s trained weights, or in distances to the network at 1; fixed weights do not move. The weight average is "
        f"over the last {min(spec['averaged'], kept)} of {kept} snapshots and the end of training. Evaluated on {images} "
        "images, the same for every slice."
    )


def _asymmetry(spec: Mapping[str, Any], results: Results) -> None:
    """How much faster the loss rises ahead than behind, a row per direction."""
    st.subheader("How lopsided valleys are", anchor=False)
    frame = results["valleys"].to_pandas()
    panels = {}
    for split in ("train", "test"):
        own = frame[frame["split"] == split]
        panels[f"{split.capitalize()} images"] = own.assign(row=own["direction"], value=own["asymmetry"])
    rows = {name: SHORT[name] for name in spec["directions"]}
    title = "rise ahead over rise behind"
    axis = lanes.Axis(title, 2, log=True, rule=1.0, middle="median")
    told = [alt.Tooltip("member:O", title="network"), alt.Tooltip("draw:O", title="draw")]
    st.html(tables.legend(spec["treatments"]))
    drawing = lanes.figure(panels, rows, spec["treatments"], axis, told) if len(frame) else None
    parts.chart(drawing, lanes.height(len(rows), len(spec["treatments"])), "asymmetry", width="content")
    parts.note(
        "<b>Asymmetric valleys</b> (He et al. 2019): how far the loss rises on the forward side of a slice’s lowest point over "
        "how far it rises on the backward side, both at 0.6 of the distance to the nearer end. At the dashed line both sides "
        "are alike; right of it the loss rises faster ahead. A dot is a slice, a bar the median; a slice whose lowest "
        "point lies at its end has no dot. Export has the ratio c of slopes for three distances beside it."
    )


def _spectrum(spec: Mapping[str, Any], results: Results) -> None:
    """Eigenvalues and trace, networks beside the points midway between them."""
    st.subheader("Curvature", anchor=False)
    frame = queries.curvature(results["curvature"])
    ranks = [f"eigenvalue {rank}" for rank in range(1, spec["eigenvalues"] + 1)]
    rows = {"trace": "trace"} | {name: name for name in ranks}
    axis = lanes.Axis("nats per squared unit of weight", 3, log=True)
    told = [alt.Tooltip("told:N", title="at"), alt.Tooltip("error:Q", title="error", format=".2g")]
    st.html(tables.legend(spec["treatments"]))
    drawing = lanes.figure({"": frame}, rows, spec["treatments"], axis, told) if len(frame) else None
    parts.chart(drawing, lanes.height(len(rows), len(spec["treatments"])), "curvature", width="content")
    parts.note(
        "Hessian of the train loss over the trained weights. Dots are trained networks, hollow diamonds the midpoints of two, "
        f"bars their means. Eigenvalues by Lanczos’ method in {spec['steps']} steps (error: the residual, within which a true "
        f"one lies), trace by Hutchinson’s estimator with {spec['probes']} random vectors (error: its standard error); both are "
        "exact products over the images. What is not above zero has no dot."
    )


def _table(study: str, spec: Mapping[str, Any], summary: pd.DataFrame) -> None:
    parts.table(
        spec["treatments"],
        columns(spec["treatments"], summary),
        summary,
        study,
        hint="At full precision; losses in nats.",
        note="curvature and averages: mean and sample standard deviation",
    )
    parts.note(
        "Gain: what averaging weights lowers the loss by, the loss at the end of training less that of the weight average."
    )


def columns(treatments: Sequence[str], summary: pd.DataFrame) -> list[Column]:
    """What is told of each treatment: traces and eigenvalues, and what averaging its weights gains."""
    found = _rows(treatments, summary)
    return [
        Column.of(found, "network_eigenvalue", "Largest eigenvalue", "networks", 2),
        Column.of(found, "midpoint_eigenvalue", "Largest eigenvalue", "midway", 2),
        Column.of(found, "network_trace", "Trace", "networks", 1),
        Column.of(found, "midpoint_trace", "Trace", "midway", 1),
        Column.of(found, "networks", "Networks", "n", 0),
        Column.of(found, "midpoints", "Midpoints", "n", 0),
        Column.of(found, "train_average_gain", "Gain, train", "nats", 4),
        Column.of(found, "test_average_gain", "Gain, test", "nats", 4),
    ]
