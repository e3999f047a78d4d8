"""Results of a distances study: how far apart networks are, whole and layer by layer, beside the barriers between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts
from app.charts import distances, paths, tables
from app.charts.quantities import ACCURACY, CALIBRATED, LOSS, Quantity
from app.charts.tables import Column

Results = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Measure:
    """One of the measures of a distance, as people read it."""

    column: str
    title: str
    factor: float
    unit: str
    digits: int
    told: str


MEASURES = {
    "L2": Measure(
        "distance",
        "L2 distance (units of weights)",
        1.0,
        "units of weights",
        2,
        "‖θ₁ − θ₂‖, in units of the weights",
    ),
    "per parameter": Measure(
        "per_parameter",
        "distance per parameter (10⁻³)",
        1e3,
        "10⁻³",
        3,
        "‖θ₁ − θ₂‖ over the number of entries, as the paper gives it, in thousandths",
    ),
    "relative": Measure(
        "relative",
        "relative distance",
        1.0,
        "ratio",
        3,
        "‖θ₁ − θ₂‖ over the root mean square of the two norms: 0 for equal networks, √2 for orthogonal ones",
    ),
}
ENTRIES = {"trained": "trainable", "all": "all"}


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    measure, entries = controls()
    st.html(_cards(spec, results, measure, entries))
    counted = "the weights that are trained" if entries == "trainable" else "all weights, the fixed ones too"
    parts.note(
        f"Distance between the two networks of a pair over {counted}: {measure.told}. Mean ± sample standard deviation over "
        "pairs. Git Re-Basin is Standard with the second network's neurons permuted to match the first's."
    )
    _charts(spec, results, measure, entries)
    parts.note(
        "Fixed weights are the same in both networks, so the L2 distance does not depend on whether they count; what it "
        "is divided by does."
    )
    _table(study["study"], spec, results, entries)
    parts.note(
        "The paper states distances per parameter for graph networks on ogbn-arxiv (Standard 0.174 · 10⁻³, W-Asymmetric "
        "0.159 · 10⁻³, between networks with barriers of 1.448 and 0.069 nats); the distances stand beside the preset “gnn”. It "
        "states them for the metanetworks' ResNet8 on CIFAR-10 too (3.4 and 5.1 · 10⁻³, 20,000 pairs), each of which has a "
        "learning rate and a decay of its own; other networks do not compare with these."
    )


def controls() -> tuple[Measure, str]:
    """What people choose: the measure, and which weights count, a value of `ENTRIES`."""
    with st.container(horizontal=True, gap="medium"):
        measure = MEASURES[parts.choice("Distance", "distance", list(MEASURES))]
        entries = ENTRIES[parts.choice("Weights", "weights", list(ENTRIES))]
    return measure, entries


BRIEF = "L2 distance between the networks of a pair, trained weights"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, measure = study["spec"], MEASURES["L2"]
    if large:
        st.html(_cards(spec, results, measure, "trainable"))
        return
    rows = _rows(spec, results, "trainable")
    cells = {str(key): _cell(row, measure) for key, row in rows.iterrows()}
    st.html(tables.in_line(cells, measure.digits))


TABLES = {
    "summary": "Barriers of each treatment",
    "distances": "Distances of each treatment",
    "pairs": "Distances of each pair",
    "layers": "Distances of each layer",
}
"""What the result tables are called."""


def _rows(spec: Mapping[str, Any], results: Results, entries: str) -> pd.DataFrame:
    """A row per treatment in the study's order, NaN where nothing is done yet."""
    found = results["distances"].to_pandas()
    return found[found["entries"] == entries].set_index("treatment").reindex(spec["treatments"])


def _cell(row: Mapping[str, Any], measure: Measure) -> tuple[float, float]:
    return row[measure.column] * measure.factor, row[f"{measure.column}_std"] * measure.factor


def _endpoints(spec: Mapping[str, Any], results: Results, quantity: Quantity) -> pd.DataFrame:
    """Barriers and endpoints on the test images by treatment, in the unit that people read."""
    return tables.by_treatment(spec["treatments"], results["summary"].to_pandas(), quantity, "test")


def _cards(spec: Mapping[str, Any], results: Results, measure: Measure, entries: str) -> str:
    loss, accuracy = (_endpoints(spec, results, quantity) for quantity in (LOSS, ACCURACY))
    drawn = []
    for key, row in _rows(spec, results, entries).iterrows():
        value = tables.with_spread(*_cell(row, measure), measure.digits, measure.digits)
        done = 0 if math.isnan(row["pairs"]) else int(row["pairs"])
        told = f"n = {done}" if done == spec["pairs"] else f"{done} of {spec['pairs']} pairs"
        barrier = tables.cell(loss.loc[key], "barrier_midpoint")
        told += f"<br>barrier {tables.with_unit(*barrier, LOSS.digits, LOSS.barrier_unit)}"
        told += tables.reached("test", *(tables.cell(rows.loc[key], "endpoint") for rows in (loss, accuracy)))
        drawn.append(tables.card(str(key), value, told))
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _charts(spec: Mapping[str, Any], results: Results, measure: Measure, entries: str) -> None:
    """Pairs by treatment and against their barriers, then layers; places are kept until something is done."""
    pairs = shown(results["pairs"], measure, entries)
    order = [key for key in spec["treatments"] if key in set(pairs["treatment"])]
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Distance of each pair", anchor=False)
        dots = paths.barriers(pairs, order, measure.title, measure.digits, "distance") if order else None
        parts.chart(dots, paths.height(len(spec["treatments"])), "distances")
    with right:
        st.subheader("Distance and barrier", anchor=False)
        both = pairs.rename(columns={"barrier_midpoint": "barrier"})
        drawn = distances.against_barriers(both, measure.title) if both["barrier"].notna().any() else None
        parts.chart(drawn, distances.HEIGHT, "against", legend=spec["treatments"])
    parts.note(
        "Of pairs, a dot is a pair, a bar the mean, a line one sample standard deviation to either side."
    )
    layers(spec["treatments"], results["layers"], measure, entries)


def layers(treatments: Sequence[str], table: pa.Table, measure: Measure, entries: str) -> None:
    """Every layer's distance, a lane per treatment.

    Args:
        treatments: From top to bottom within a layer.
        table: What `jobs.studies.distances_results.by_layer` makes.
        measure: What of it is drawn.
        entries: Which weights count, a value of `ENTRIES`.
    """
    st.subheader("Layer by layer", anchor=False)
    found = shown(table, measure, entries)
    order = [key for key in treatments if key in set(found["treatment"])]
    height = distances.layers_height(max(4, found["layer"].nunique()))
    parts.chart(
        distances.by_layer(found, order, measure.title) if order else None,
        height,
        "layers",
        legend=treatments,
    )
    parts.note(
        "Of layers, a dot is the mean over pairs, a line one sample standard deviation to either side."
    )


def shown(table: pa.Table, measure: Measure, entries: str) -> pd.DataFrame:
    """Pairs or layers that have such entries, with the measure as `value`."""
    frame: pd.DataFrame = table.to_pandas()
    frame = frame[(frame["entries"] == entries) & (frame["count"] > 0)]
    return frame.assign(value=frame[measure.column].astype(float) * measure.factor)


def _table(study: str, spec: Mapping[str, Any], results: Results, entries: str) -> None:
    """The numbers of every treatment, and the buttons that hand them out."""
    parts.table(
        spec["treatments"],
        _columns(spec, results, entries),
        results["distances"].to_pandas(),
        study,
        hint="Trained weights and all weights, at full precision.",
        note=f"distances over {entries} weights, on the test images: mean and sample standard deviation over pairs",
        chosen=entries,
    )


def _columns(spec: Mapping[str, Any], results: Results, entries: str) -> list[Column]:
    rows = _rows(spec, results, entries)
    loss, accuracy = (_endpoints(spec, results, quantity) for quantity in (LOSS, ACCURACY))
    measured = [
        Column(title, m.unit, [_cell(row, m) for _, row in rows.iterrows()], m.digits, m.digits)
        for title, m in zip(("L2", "Per parameter", "Relative"), MEASURES.values(), strict=True)
    ]
    stated = rows["paper_per_parameter"].astype(float) * MEASURES["per parameter"].factor
    papers = Column("Paper", "10⁻³", [(value, math.nan) for value in stated], 3, 3)
    # a study of an earlier version knows of no temperatures
    barriers = [LOSS, CALIBRATED] if spec.get("temperature", False) else [LOSS]
    return [
        *measured,
        *([papers] if stated.notna().any() else []),
        Column.of(rows, "count", "Entries", "n", 0),
        *(
            Column.of(
                _endpoints(spec, results, q),
                "barrier_midpoint",
                f"{q.key.capitalize()} barrier",
                q.unit,
                q.digits,
            )
            for q in barriers
        ),
        *tables.endpoints(loss, accuracy, "test"),
        Column.of(rows, "pairs", "Pairs", "n", 0),
    ]
