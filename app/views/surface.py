"""A surface run's results: loss and accuracy on its plane, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from app import parts, queries
from app.charts import surfaces
from app.charts.quantities import LOSS, QUANTITIES
from app.charts.surfaces import Look, Surface, Window
from app.views import landscape
from symcore.data.sources import SOURCES

TABLES = {
    "surface_cell": "All cells",
    "surface_mark": "Networks and midpoints",
    "surface_snapshot": "Training run on its plane",
    "surface_axis": "Axes of the plane",
}
"""What the record tables are called."""
GRID, GRID_TOLD = "grid", "The surface as arrays"
"""Name and label of the arrays that `arrays` makes."""


def draw(run: Mapping[str, Any]) -> None:
    """Both quantities beside each other, in colours of their own."""
    spec, lab = run["spec"], parts.lab()
    plane, window = spec["plane"], _window(spec)
    cells = queries.surfaces(queries.records(lab, "surface_cell", run["run"]))
    marks = queries.surfaces(queries.records(lab, "surface_mark", run["run"]))
    snapshots = queries.surfaces(queries.records(lab, "surface_snapshot", run["run"]))
    one = Surface(queries.treatment(run), plane["kind"], window, cells, marks, snapshots)
    for (key, quantity), column in zip(QUANTITIES.items(), st.columns(2, gap="medium"), strict=True):
        classes = SOURCES[spec["data"]].classes
        scale = surfaces.colours(cells[key], quantity, classes, log=quantity is LOSS)
        look = Look(quantity, spec["split"], scale, surfaces.LARGEST)
        with column:
            st.subheader(f"{key.capitalize()} on the plane", anchor=False)
            drawing = None if cells.empty else surfaces.figure({"": [one]}, look)
            parts.chart(drawing, surfaces.height(1, 2), f"surface-{key}", width="content")
    parts.note(f"{landscape.images(spec)}. {landscape.PLANES[plane['kind']]}")


def arrays(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of `surfaces.arrays`."""
    return surfaces.arrays(queries.records(parts.lab(), "surface_cell", run["run"]), _window(run["spec"]))


def _window(spec: Mapping[str, Any]) -> Window:
    plane = spec["plane"]
    return surfaces.window(plane["kind"], plane[surfaces.REACH[plane["kind"]]], spec["cells"])
