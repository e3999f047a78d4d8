"""A train run's results: loss and accuracy by epoch, mean and spread over its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries, theme, wording
from app.charts import curves
from app.charts.quantities import QUANTITIES

TABLES = {
    "metric": "Loss and accuracy by epoch",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """A chart per quantity; their places are kept until the first epoch is over."""
    frame = queries.metrics(parts.lab(), run["run"])
    steps, networks = run["spec"]["training"]["epochs"], len(run["spec"]["seeds"])
    role = theme.role(queries.treatment(run))
    with st.container(horizontal=True, vertical_alignment="center"):
        parts.note(wording.lines(networks, "network"))
        logarithmic = st.toggle("Logarithmic loss", key="log", bind="query-params")
    for (key, quantity), column in zip(QUANTITIES.items(), st.columns(2, gap="medium"), strict=True):
        points = frame[frame["quantity"] == key]
        with column:
            st.subheader(key.capitalize(), anchor=False)
            shown = points.assign(value=points["value"] * quantity.factor)
            log = logarithmic and key == "loss"
            chart = None if shown.empty else curves.training(shown, quantity, steps, role, log=log)
            parts.chart(chart, curves.HEIGHT, f"curve-{key}")
