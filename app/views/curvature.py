"""A curvature run's results: the Hessian's largest eigenvalues and its trace, at networks and between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import parts, queries
from app.charts import along
from app.views import valleys
from jobs.kinds.curvature import MIDWAY
from jobs.studies import valleys_results
from jobs.studies.valleys import CURVATURE

TABLES = {
    "curvature_eigenvalue": "Eigenvalues",
    "curvature_trace": "Traces",
    "curvature_point": "Where they are",
}
"""What the record tables are called."""
ALONG = {"eigenvalue 1": "Largest eigenvalue", "trace": "Trace"}
"""What is drawn along the way between networks, and its name."""


def draw(run: Mapping[str, Any]) -> None:
    """The chart of a study of valleys, for the networks of this run; where it looks at several positions, each at its own."""
    spec, treatment = run["spec"], queries.treatment(run)
    table = queries.as_results(parts.lab(), run, "curvature", CURVATURE, valleys_results.curvature)
    several = len(spec.get("alphas", MIDWAY)) > 1
    if several:
        _along(run, treatment, queries.curvature_along(queries.curvature(table)))
    st.subheader("Curvature at networks" if several else "Curvature", anchor=False)
    valleys.spectrum([treatment], spec, table, spec["split"], between=not several)


def _along(run: Mapping[str, Any], treatment: str, points: pd.DataFrame) -> None:
    """A chart of each of `ALONG` over the way from one network of a pair to the other."""
    form = "Bezier curve" if run["spec"].get("curve") else "straight path"
    for (row, name), column in zip(ALONG.items(), st.columns(2, gap="medium"), strict=True):
        own = points[points["row"] == row]
        with column:
            st.subheader(f"{name} on the {form}", anchor=False)
            title = f"{name.lower()} (nats per squared unit of weight)"
            drawing = None if own.empty else along.figure(own, treatment, title)
            parts.chart(drawing, along.HEIGHT, f"along-{row.partition(' ')[0]}")
    if points.empty and not queries.is_going_on(run["state"]):
        parts.note("The positions of this run’s points are not known, or none of its numbers is above zero.")
        return
    parts.note(
        "A hairline joins the points of a pair, the thick line is the mean over pairs. Dots are trained networks, hollow "
        "diamonds points between two; where these lie is known once the run is done."
    )
