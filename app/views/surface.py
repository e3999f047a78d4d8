"""A surface run's results: loss and accuracy on its plane, as far as they are known, alone or beside other surfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import parts, queries, theme
from app.charts import surfaces
from app.charts.quantities import LOSS, QUANTITIES, Quantity
from app.charts.surfaces import Look, Surface, Window
from app.views import landscape
from jobs import queries as reads
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
OTHERS = 200
"""Newest surfaces that one can be put beside."""
MOST = 7
"""Surfaces that may stand beside one."""
PLANES = {
    "random": "Around a network, along random directions",
    "through": "Through three networks a, b and c",
    "trajectory": "Along a training run",
}
"""What is said above surfaces of each kind of plane."""


def draw(run: Mapping[str, Any]) -> None:
    """Both quantities: beside each other in colours of their own, or each on one scale with the surfaces of other runs."""
    if others := _beside(run["run"]):
        _together([run, *others])
    else:
        _alone(run)
        spec = run["spec"]
        parts.note(f"{landscape.images(spec)}. {landscape.PLANES[spec['plane']['kind']]}")


def _beside(name: str) -> list[dict[str, Any]]:
    """The runs whose surfaces are to stand beside this one's, if some are chosen; they are kept in the address."""
    known = queries.surface_names(parts.lab(), OTHERS)
    known.pop(name, None)
    if not known:
        return []
    asked = [other for other in st.query_params.get_all("beside") if other in known][:MOST]
    chosen = st.multiselect(
        "Beside",
        list(known),
        default=asked,
        format_func=known.__getitem__,
        key="beside",
        max_selections=MOST,
        select_all=False,
        placeholder="surfaces of other runs",
        help=f"The newest {OTHERS} surfaces of all studies can be chosen. All are drawn on one scale.",
    )
    if chosen != asked:
        st.query_params["beside"] = chosen
    return [reads.run(parts.lab().store, other) for other in chosen]


def _alone(run: Mapping[str, Any]) -> None:
    """Loss and accuracy beside each other."""
    one = _surface(run)
    for (key, quantity), column in zip(QUANTITIES.items(), st.columns(2, gap="medium"), strict=True):
        look = _look([run], [one], quantity, surfaces.LARGEST)
        with column:
            st.subheader(f"{key.capitalize()} on the plane", anchor=False)
            drawing = None if one.cells.empty else surfaces.figure({"": [one]}, look)
            parts.chart(drawing, surfaces.height(1, 2), f"surface-{key}", width="content")


def _together(runs: Sequence[Mapping[str, Any]]) -> None:
    """Surfaces of several runs, a row for each kind of plane, on one span and one scale of colours."""
    landscape.warn([shared(run["spec"]) for run in runs])
    found = [_surface(run, named=True) for run in runs]
    rows = {
        heading: surfaces.on_one_span(own)
        for kind, heading in PLANES.items()
        if (own := [surface for surface in found if surface.plane == kind])
    }
    counts = [len(own) for own in rows.values()]
    for key, quantity in QUANTITIES.items():
        st.subheader(f"{key.capitalize()} on the planes", anchor=False)
        look = _look(runs, found, quantity, surfaces.side(max(counts)))
        drawing = None if all(surface.cells.empty for surface in found) else surfaces.figure(rows, look)
        parts.chart(drawing, surfaces.height_of(counts), f"surfaces-{key}", width="content")
    parts.note(
        "Surfaces of one kind of plane share the span of the widest; all share one scale of colours. Hover over a cell or a "
        f"mark for its loss and accuracy. {' '.join(landscape.PLANES[kind] for kind in PLANES if PLANES[kind] in rows)}"
    )


def shared(spec: Mapping[str, Any]) -> dict[str, str]:
    """What surfaces of runs must share to compare, each by what it is called; spans of one kind of plane alone compare."""
    plane = spec["plane"]
    kind, reach = plane["kind"], surfaces.REACH[plane["kind"]]
    found = {
        "images": landscape.evaluated_on(spec),
        f"contents of {spec['data']}": f"checksum {spec.get('data_checksum', '')[:8]}",
        "kind of plane": kind,
        f"{reach} of {kind} planes": f"{plane[reach]:g}",
        "arithmetic": spec["precision"],
    }
    return found | ({"directions of random planes": f"seed {plane['seed']}"} if "seed" in plane else {})


def _surface(run: Mapping[str, Any], *, named: bool = False) -> Surface:
    """What is known of a run's surface; `named` says whether its id stands above it."""
    lab, treatment = parts.lab(), queries.treatment(run)
    cells, marks, snapshots = (
        queries.surfaces(queries.records(lab, table, run["run"]))
        for table in ("surface_cell", "surface_mark", "surface_snapshot")
    )
    name = f"{theme.treatment(treatment).label} ({run['run']})" if named else ""
    window = _window(run["spec"])
    return Surface(treatment, run["spec"]["plane"]["kind"], window, cells, marks, snapshots, name)


def _look(runs: Sequence[Mapping[str, Any]], found: Sequence[Surface], quantity: Quantity, side: int) -> Look:
    """One scale of colours for all of them."""
    values = pd.concat([surface.cells[quantity.key] for surface in found])
    classes = max(SOURCES[run["spec"]["data"]].classes for run in runs)
    scale = surfaces.colours(values, quantity, classes, log=quantity is LOSS)
    splits = dict.fromkeys(run["spec"]["split"] for run in runs)
    return Look(quantity, "/".join(splits), scale, side)


def arrays(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of `surfaces.arrays`."""
    return surfaces.arrays(queries.records(parts.lab(), "surface_cell", run["run"]), _window(run["spec"]))


def _window(spec: Mapping[str, Any]) -> Window:
    plane = spec["plane"]
    return surfaces.window(plane["kind"], plane[surfaces.REACH[plane["kind"]]], spec["cells"])
