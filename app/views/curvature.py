"""A curvature run's results: the Hessian's largest eigenvalues and its trace, at networks and between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries
from app.views import valleys
from jobs.studies import valleys_results

TABLES = {
    "curvature_eigenvalue": "Eigenvalues",
    "curvature_trace": "Traces",
    "curvature_point": "Where they are",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The chart of a study of valleys, for the networks of this run."""
    spec = run["spec"]
    records = ("curvature_eigenvalue", "curvature_trace")
    table = queries.as_results(parts.lab(), run, "curvature", records, valleys_results.curvature)
    st.subheader("Curvature", anchor=False)
    valleys.spectrum([queries.treatment(run["studies"])], spec, table, spec["split"])
