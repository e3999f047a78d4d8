"""An interpolate run's results: the paths it evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries, wording
from app.charts import paths
from app.charts.quantities import QUANTITIES

TABLES = {
    "path_point": "All points of paths",
    "path_calibrated": "Losses at the best temperatures",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The points of straight paths."""
    charts(run, "on the straight paths", "straight path")


def charts(run: Mapping[str, Any], where: str, form: str) -> None:
    """Loss and accuracy along the paths of a run, beside each other.

    Args:
        run: What `jobs.queries.run` knows of it; it recorded path_point.
        where: The points lie, for headings.
        form: Of the paths, for those who hear the charts.
    """
    spec = run["spec"]
    split = parts.choice(wording.inputs(spec["data"]).capitalize(), "split", sorted(spec["splits"]))
    frame = queries.records(parts.lab(), "path_point", run["run"])
    points = frame[frame["split"] == split]
    treatment = queries.treatment(run)
    for (key, quantity), column in zip(QUANTITIES.items(), st.columns(2, gap="medium"), strict=True):
        with column:
            st.subheader(f"{key.capitalize()} {where}", anchor=False)
            shown = points[["pair", "alpha"]].assign(treatment=treatment, value=points[key] * quantity.factor)
            chart = None if shown.empty else paths.interpolation(shown, quantity, split, form=form)
            parts.chart(chart, paths.HEIGHT, f"path-{key}")
    parts.note(wording.lines(len(spec["pairs"]), "pair"))
