"""A layerwise run's results: what moving single layers from one network to another does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import streamlit as st

from app import parts, queries
from app.charts.quantities import QUANTITIES
from app.views import curves
from jobs.studies import curves_results

TABLES = {
    "layer_point": "All points of paths",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The chart of a study of low paths, for the pairs of this run."""
    spec = run["spec"]
    st.subheader("Layer by layer", anchor=False)
    with st.container(horizontal=True, gap="medium"):
        split = parts.choice("Images", "split", sorted(spec["splits"]))
        quantity = QUANTITIES[parts.choice("Quantity", "quantity", list(QUANTITIES))]
    table = queries.as_results(parts.lab(), run, "layers", ("layer_point",), _layers)
    curves.layers([queries.treatment(run)], spec["orders"], table, quantity, split)


def _layers(points: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    return curves_results.layers(curves_results.layer_points(points, roles))
