"""Results of a symmetry study: the permutations that each treatment leaves, what else it leaves, and what it fixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, theme
from app.charts import changes, orders, tables
from app.views import inspect
from jobs.inputs import WEIGHTS

Results = Mapping[str, pa.Table]
TABLE_HEADS = ("Two neurons swapped", "All neurons permuted", "One layer scaled", "One layer's rows shifted")

BRIEF = "Permutations of neurons that leave the function as it is"
"""What the numbers of `brief` are."""

NOTHING_FIXED = ("standard", "asym_init")
"""Treatments all of whose weights are trained."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    summary, measured = results["summary"].to_pandas(), results["changes"].to_pandas()
    st.html(orders.cards(spec["treatments"], summary))
    parts.note(orders.TOLD)
    st.subheader("What a transformation of the weights changes", anchor=False)
    parts.chart(
        changes.dots(measured, spec["treatments"]) if len(measured) else None,
        changes.height(len(spec["treatments"])),
        "changes",
    )
    _meaning(spec, set(measured["transformation"]))
    st.subheader("Mean and largest change", anchor=False)
    st.html(_table(spec["treatments"], summary))
    _masks(study)


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    treatments, summary = study["spec"]["treatments"], results["summary"].to_pandas()
    st.html(orders.cards(treatments, summary) if large else orders.strip(treatments, summary))


TABLES = {"summary": "Orders and changes", "groups": "Groups of neurons", "changes": "Every measured change"}
"""What the result tables are called."""


def _table(treatments: list[str], summary: pd.DataFrame) -> str:
    """Changes of every treatment: the mean over draws, and the largest under it."""
    rows = orders.by_treatment(summary)

    def cell(row: Mapping[str, Any], name: str) -> str:
        mean, most = row.get(f"{name}_mean", math.nan), row.get(f"{name}_max", math.nan)
        return (
            tables.MISSING if math.isnan(mean) else f'{mean:.2g}<span class="spread">, max {most:.2g}</span>'
        )

    heads = "".join(f'<th class="number" scope="col">{head}</th>' for head in TABLE_HEADS)
    body = "".join(
        f'<tr><th scope="row">{tables.swatch(key)}{escape(theme.treatment(key).label)}</th>'
        + "".join(f'<td class="number">{cell(rows.get(key, {}), name)}</td>' for name in changes.NAMES)
        + "</tr>"
        for key in treatments
    )
    table = f'<thead><tr><th scope="col">Treatment</th>{heads}</tr></thead><tbody>{body}</tbody>'
    return f'<div class="lab-table-frame"><table class="lab-table">{table}</table></div>'


def _meaning(spec: Mapping[str, Any], measured: set[str]) -> None:
    """The dots in words."""
    parts.note(
        f"{changes.told(spec['draws'], spec['probes'])} Fixed weights stay in their places when the others move, so an "
        "asymmetric network can only come as near to the transformed one as they allow; so do the offsets of syre, whose W "
        "moves alone."
    )
    if "scale" in measured:
        shared = " and what all its rows share" if "shift" in measured else ""
        parts.note(
            f"<b>What a norm allows.</b> A norm right after a layer takes away the layer's scale{shared}, so that this may "
            "change freely; but for the norm's ε, which keeps a scaling from being exact. FiGLU comes after the norm and "
            "leaves that as it is. Fixed weights put an end to it, except that where κ = 0 they are zeros, which stay "
            "zeros when they are scaled."
        )


def _masks(study: Mapping[str, Any]) -> None:
    """Pictures of one treatment's fixed weights, once its run is done."""
    done = {run["role"].partition("/")[0]: run["run"] for run in study["runs"] if run["state"] == "done"}
    shown = sorted((key for key in done if key not in NOTHING_FIXED), key=lambda key: key == "sigma")
    names = {theme.treatment(key).label: key for key in shown}
    if not names:
        return
    st.subheader("What is fixed", anchor=False)
    chosen = parts.choice("Treatment", "fixed", list(names))
    inspect.pictures(parts.lab().run_folder(done[names[chosen]]) / WEIGHTS, names[chosen])
