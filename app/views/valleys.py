"""Results of a study of valleys: slices through networks, how lopsided they are, and the Hessian's spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, queries, wording
from app.charts import lanes, slices, tables
from app.charts.quantities import ACCURACY, LOSS, QUANTITIES
from app.charts.tables import Column
from symcore.data.sources import SOURCES

Results = Mapping[str, pa.Table]
SPLITS = ("train", "test")
LENGTHS = "weights’ lengths"
DIRECTIONS = {
    "gaussian": ("Normal numbers", LENGTHS),
    "uniform": ("Uniform in [0, 1]", LENGTHS),
    "sign": ("|normal| with each weight’s sign", LENGTHS),
    "noise": ("Noise of SGD", LENGTHS),
    "between": ("To the next network, at 1", "distances"),
    "average": ("From the weight average to the end, at 1", "distances"),
    "norms": ("Uniform, norms’ parameters only", LENGTHS),
    "others": ("Uniform, all but norms’ parameters", LENGTHS),
}
"""Directions in words, and the unit of positions."""
SHORT = {
    "gaussian": "normal",
    "uniform": "uniform",
    "sign": "sign(w) |normal|",
    "noise": "noise of SGD",
    "between": "to the next network",
    "average": "average to end",
    "norms": "uniform, norms only",
    "others": "uniform, all but norms",
}


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    summary = results["summary"].to_pandas()
    st.html(cards(spec["treatments"], summary, planned=spec["networks"]))
    parts.note(
        "Largest eigenvalue of the Hessian of the train loss, in nats per squared unit of weight, over the weights that are "
        "trained: mean ± sample standard deviation over networks. Under it their loss and accuracy on all test images."
    )
    st.subheader("Slices through networks", anchor=False)
    panels(spec["treatments"], spec["directions"], results["slices"], SPLITS)
    kept = min(spec["snapshots"], spec["training"]["epochs"])
    averaged = f"the last {min(spec['averaged'], kept)} of {kept} snapshots"
    onward = spec.get("onward_epochs", 0)  # a study of an earlier version does not go on
    parts.note(explained(spec, spec["networks"], averaged, SPLITS, onward=bool(onward)))
    st.subheader("How lopsided valleys are", anchor=False)
    asymmetry(spec["treatments"], spec["directions"], results["valleys"], SPLITS)
    parts.note("Export has the ratio c of slopes for three distances beside it.")
    st.subheader("Curvature", anchor=False)
    spectrum(spec["treatments"], spec, results["curvature"], "train")
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


TABLES = {
    "summary": "Numbers of each treatment",
    "networks": "Loss and accuracy of each network",
    "valleys": "Numbers of each slice",
    "curvature": "Eigenvalues and traces",
    "slices": "All points of slices",
}
"""What the result tables are called."""


def _rows(treatments: Sequence[str], summary: pd.DataFrame) -> pd.DataFrame:
    """The summary by treatment, accuracies in %; NaN where nothing is done yet."""
    found = summary.set_index("treatment").drop(columns="label").astype(float).reindex(list(treatments))
    accuracies = [name for name in found.columns if "accuracy" in name]
    found[accuracies] *= ACCURACY.factor
    return found


def cards(treatments: Sequence[str], summary: pd.DataFrame, *, planned: int) -> str:
    """A card per treatment with its largest eigenvalue, under it that midway between networks and what these reach, as HTML."""
    drawn = []
    for key, row in _rows(treatments, summary).iterrows():
        value = tables.with_spread(row["network_eigenvalue"], row["network_eigenvalue_std"], 2, 2)
        midway = tables.with_spread(row["midpoint_eigenvalue"], row["midpoint_eigenvalue_std"], 2, 2)
        midpoints = 0 if math.isnan(row["midpoints"]) else int(row["midpoints"])
        known = 0 if math.isnan(row["networks"]) else int(row["networks"])
        counted = f"n = {known}" if known == planned else f"{known} of {planned} networks"
        told = f"largest eigenvalue, {counted} · midway {midway}" + (
            f", n = {midpoints}" if midpoints else ""
        )
        told += tables.reached("test", *(tables.cell(row, f"test_{quantity}") for quantity in QUANTITIES))
        drawn.append(tables.card(str(key), value, told))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def panels(
    treatments: Sequence[str], directions: Sequence[str], table: pa.Table, splits: Sequence[str]
) -> None:
    """Slices through networks, a panel per direction, all on one scale.

    Args:
        treatments: From top to bottom of the legend.
        directions: Of the slices, keys of `DIRECTIONS`.
        table: What `jobs.studies.valleys_results.slices` makes.
        splits: The images that can be chosen.
    """
    with st.container(horizontal=True, gap="medium"):
        split = parts.choice("Images", "split", splits)
        quantity = QUANTITIES[parts.choice("Quantity", "quantity", list(QUANTITIES))]
        log = quantity is LOSS and parts.choice("Scale", "scale", ["log", "linear"]) == "log"
    points = queries.slices(table, quantity, split)
    drawn = {name: DIRECTIONS[name] for name in directions}
    drawing = slices.figure(points, drawn, quantity, split, log=log) if len(points) else None
    parts.chart(drawing, slices.height(len(drawn)), "slices", width="content", legend=treatments)


def explained(
    spec: Mapping[str, Any], networks: int, averaged: str, splits: Sequence[str], *, onward: bool
) -> str:
    """What the panels are in words, as HTML.

    Args:
        spec: A study's or a run's, which name data, directions, draws and images alike.
        networks: That slices go through.
        averaged: Snapshots that the weight average is over, in words.
        splits: The images.
        onward: Whether the networks were trained on from that average.
    """
    of = SOURCES[spec["data"]].sizes
    images = " and ".join(
        f"{min(spec['images'] or of[name], of[name]):,} of {of[name]:,} {name}" for name in splits
    )
    average = (
        f" The weight average is over {averaged} and the end of training{', which then went on from it' if onward else ''}."
        if "average" in spec["directions"]
        else ""
    )
    return (
        f"Hairlines are single slices, thick lines their means over {wording.count(networks, 'network')}"
        f" (times {wording.count(spec['draws'], 'draw')} where a direction is random); all panels share one scale. Positions "
        "are in lengths of the trained weights that move, or in distances to the network at 1; fixed weights do not "
        f"move.{average} Evaluated on {images} images, the same for every slice."
    )


def asymmetry(
    treatments: Sequence[str], directions: Sequence[str], table: pa.Table, splits: Sequence[str]
) -> None:
    """How much faster the loss rises ahead than behind, a row per direction.

    Args:
        treatments: From top to bottom within a row.
        directions: Of the slices, keys of `SHORT`; those without a dot have no row.
        table: What `jobs.studies.valleys_results.valleys` makes.
        splits: The images, a panel for each.
    """
    frame = table.to_pandas()
    frame = frame.assign(row=frame["direction"], value=frame["asymmetry"])
    drawn = {f"{split.capitalize()} images": frame[frame["split"] == split] for split in splits}
    known = set(frame.loc[frame["value"].notna(), "row"])
    rows = {name: SHORT[name] for name in directions if name in known or frame.empty}
    if not rows:
        parts.note("No slice has its lowest point far enough from its ends to tell.")
        return
    axis = lanes.Axis("rise ahead over rise behind", 2, log=True, rule=1.0, middle="median")
    told = [alt.Tooltip("member:O", title="network"), alt.Tooltip("draw:O", title="draw")]
    drawing = lanes.figure(drawn, rows, treatments, axis, told) if len(frame) else None
    parts.chart(
        drawing, lanes.height(len(rows), len(treatments)), "asymmetry", width="content", legend=treatments
    )
    parts.note(
        "<b>Asymmetric valleys</b> (He et al. 2019): how far the loss rises on the forward side of a slice’s lowest point over "
        "how far it rises on the backward side, both at 0.6 of the distance to the nearer end. At the dashed line both sides "
        "are alike; right of it the loss rises faster ahead. A dot is a slice, a bar the median; a slice whose lowest "
        "point lies at its end has no dot, and a direction without dots no row."
    )


def spectrum(
    treatments: Sequence[str], spec: Mapping[str, Any], table: pa.Table, split: str, *, between: bool = True
) -> None:
    """Eigenvalues and trace at networks and, unless `between` is off, at points of one position between them.

    Args:
        treatments: From top to bottom within a row.
        spec: A study's or a run's, which name eigenvalues, steps and probes alike.
        table: What `jobs.studies.valleys_results.curvature` makes.
        split: Whose loss it is.
        between: Whether what lies between networks is drawn too.
    """
    frame = queries.curvature(table)
    frame = frame if between else frame[frame["shape"] == "circle"]
    ranks = [f"eigenvalue {rank}" for rank in range(1, spec["eigenvalues"] + 1)]
    rows = {"trace": "trace"} | {name: name for name in ranks}
    axis = lanes.Axis("nats per squared unit of weight", 3, log=True)
    told = [alt.Tooltip("told:N", title="at"), alt.Tooltip("error:Q", title="error", format=".2g")]
    drawing = lanes.figure({"": frame}, rows, treatments, axis, told) if len(frame) else None
    parts.chart(
        drawing,
        lanes.height(len(rows), len(treatments), headed=False),
        "curvature",
        width="content",
        legend=treatments,
    )
    parts.note(
        f"Hessian of the {split} loss over the trained weights. Dots are trained networks, "
        + ("hollow diamonds points between two, " if between else "")
        + f"bars their means. Eigenvalues by Lanczos’ method in {spec['steps']} steps (error: the residual, within which a true "
        f"one lies), trace by Hutchinson’s estimator with {spec['probes']} random vectors (error: its standard error); both are "
        "exact products over the images. What is not above zero has no dot."
    )


ACROSS = 6
"""Columns of the table that have room beside each other: what networks reach, and below it their curvature."""


def _table(study: str, spec: Mapping[str, Any], summary: pd.DataFrame) -> None:
    parts.table(
        spec["treatments"],
        columns(spec["treatments"], summary),
        summary,
        study,
        hint="At full precision; losses in nats.",
        note="curvature and averages: mean and sample standard deviation",
        across=ACROSS,
    )
    parts.note(
        "Loss and accuracy: at the end of training, on all images. Gain: what averaging weights lowers the loss by, the loss at the end of training less that of the weight average."
    )


def columns(treatments: Sequence[str], summary: pd.DataFrame) -> list[Column]:
    """What is told of each treatment: traces and eigenvalues, and what averaging its weights gains."""
    found = _rows(treatments, summary)
    reached = [
        Column.of(found, f"{split}_{key}", f"{split.capitalize()} {key}", quantity.unit, quantity.digits)
        for split in SPLITS
        for key, quantity in QUANTITIES.items()
    ]
    return [
        *reached,
        Column.of(found, "train_average_gain", "Gain", "train, nats", 4),
        Column.of(found, "test_average_gain", "Gain", "test, nats", 4),
        Column.of(found, "network_eigenvalue", "Eigenvalue 1", "networks", 2),
        Column.of(found, "midpoint_eigenvalue", "Eigenvalue 1", "midway", 2),
        Column.of(found, "network_trace", "Trace", "networks", 1),
        Column.of(found, "midpoint_trace", "Trace", "midway", 1),
        Column.of(found, "networks", "Networks", "n", 0),
        Column.of(found, "midpoints", "Midpoints", "n", 0),
    ]
