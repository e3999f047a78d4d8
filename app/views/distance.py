"""A distance run's results: how far apart the networks of each pair are, layer by layer and parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import streamlit as st

from app import parts, queries
from app.views import distances
from jobs.studies import distances_results

TABLES = {
    "weight_distance": "Distances of each parameter",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The chart of a study of distances, and a row per pair and parameter."""
    measure, entries = distances.controls()

    def by_layer(records: pa.Table, roles: Mapping[str, str]) -> pa.Table:
        found = distances_results.measured(records, roles, block=len(run["spec"]["pairs"]))
        return distances_results.by_layer(found)

    table = queries.as_results(parts.lab(), run, "distance", ("weight_distance",), by_layer)
    distances.layers([queries.treatment(run)], table, measure, entries)
    _parameters(run, entries)


def _parameters(run: Mapping[str, Any], entries: str) -> None:
    st.subheader("Parameter by parameter", anchor=False)
    frame = queries.records(parts.lab(), "weight_distance", run["run"])
    if frame.empty:
        st.skeleton(height=280)
        return
    number = st.column_config.NumberColumn
    shown = frame[frame["entries"] == entries]
    st.dataframe(
        shown[["pair", "parameter", "distance", "norm_a", "norm_b", "count"]],
        hide_index=True,
        column_config={
            "pair": number("Pair"),
            "parameter": st.column_config.TextColumn("Parameter", width="medium"),
            "distance": number("‖A − B‖", format="%.4f"),
            "norm_a": number("‖A‖", format="%.4f"),
            "norm_b": number("‖B‖", format="%.4f"),
            "count": number("Entries"),
        },
        alt="Distance of each parameter of each pair",
    )
