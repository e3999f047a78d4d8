"""Results of a barrier matrix study: every treatment's matrix on one scale, and the table of their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import streamlit as st

from app import parts, queries, wording
from app.charts import matrices, tables
from app.charts.quantities import LOSS
from app.views import lmc
from app.views.lmc import Chosen

Results = Mapping[str, pa.Table]


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec, chosen = study["spec"], lmc.controls(study["spec"]["data"])
    summary = results["summary"].to_pandas()
    planned = _pairs(spec)
    st.html(
        tables.cards(
            spec["treatments"], summary, chosen.quantity, chosen.split, chosen.which, planned=planned
        )
    )
    parts.note(
        f"{chosen.quantity.key.capitalize()} barrier in {chosen.quantity.barrier_unit} on the {chosen.split} "
        f"{wording.inputs(spec['data'])}: mean ± sample standard deviation over all {planned} pairs of {spec['networks']} networks. Pairs share "
        "networks, so they are not independent."
    )
    _chart(spec, results, chosen)
    lmc.definitions(chosen.quantity, sigma="sigma" in spec["treatments"])
    lmc.table(study["study"], spec, results, chosen)


BRIEF = f"{lmc.BRIEF}, over all pairs"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    if large:
        cards = tables.cards(spec["treatments"], summary, LOSS, "test", "midpoint", planned=_pairs(spec))
        st.html(cards)
    else:
        st.html(tables.strip(spec["treatments"], summary, LOSS, "test"))


TABLES = {"summary": "Barriers of each treatment", "pairs": "Barriers of each pair"}
"""What the result tables are called."""
GRID, GRID_TOLD = "pairs", "Matrices as arrays"
"""Name and label of the arrays that `arrays` makes."""


def arrays(study: Mapping[str, Any], results: Results) -> dict[str, np.ndarray]:
    """Both barriers as symmetric arrays [network, network]; NaN on the diagonal and where nothing is known yet."""
    found, networks = {}, study["spec"]["networks"]
    for names, own in results["pairs"].to_pandas().groupby(["treatment", "split", "quantity"], sort=False):
        for which in ("barrier_midpoint", "barrier_maximum"):
            grid = np.full((networks, networks), np.nan)
            grid[own["a"], own["b"]] = grid[own["b"], own["a"]] = own[which]
            found["/".join([*names, which])] = grid
    return found


def _pairs(spec: Mapping[str, Any]) -> int:
    return int(spec["networks"] * (spec["networks"] - 1) // 2)


def _chart(spec: Mapping[str, Any], results: Results, chosen: Chosen) -> None:
    """The matrices of what is done; their place is kept until then."""
    values = queries.barriers(results, chosen.quantity, chosen.split, chosen.which, columns=("a", "b"))
    found = {key: frame for key in spec["treatments"] if len(frame := values[values["treatment"] == key])}
    st.subheader("Barrier between every two networks", anchor=False)
    title = f"{chosen.which} {chosen.split} {chosen.quantity.key} barrier ({chosen.quantity.barrier_symbol})"
    drawing = matrices.figure(found, spec["networks"], chosen.quantity, title) if found else None
    parts.chart(drawing, matrices.height(len(spec["treatments"])), "matrices", width="content")
