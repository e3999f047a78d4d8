"""An interpolate run's results: the paths it evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries
from app.charts import paths
from app.charts.quantities import QUANTITIES


def draw(run: Mapping[str, Any]) -> None:
    """Loss and accuracy along the paths, on the test images where they were evaluated."""
    frame = queries.records(parts.lab(), "path_point", run["run"])
    split = "test" if "test" in run["spec"]["splits"] else run["spec"]["splits"][0]
    points = frame[frame["split"] == split]
    treatment = queries.treatment(run["studies"])
    for (key, quantity), column in zip(QUANTITIES.items(), st.columns(2, gap="medium"), strict=True):
        with column:
            st.subheader(f"{key.capitalize()} on the paths", anchor=False)
            shown = points[["pair", "alpha"]].assign(treatment=treatment, value=points[key] * quantity.factor)
            chart = None if shown.empty else paths.interpolation(shown, quantity, split)
            parts.chart(chart, paths.HEIGHT, f"path-{key}")
