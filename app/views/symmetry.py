"""Results of a symmetry study: the permutations that each treatment leaves, what else it leaves, and what it fixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import streamlit as st

from app import parts, theme
from app.charts import changes, orders
from app.views import inspect
from jobs.inputs import WEIGHTS

Results = Mapping[str, pa.Table]

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
    if len(measured):
        st.subheader("Median and greatest change", anchor=False)
        st.html(changes.table(measured, spec["treatments"]))
        parts.note(changes.UNITS)
    _masks(study)


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    treatments, summary = study["spec"]["treatments"], results["summary"].to_pandas()
    st.html(orders.cards(treatments, summary) if large else orders.strip(treatments, summary))


TABLES = {"summary": "Orders and changes", "groups": "Groups of neurons", "changes": "Every measured change"}
"""What the result tables are called."""


def _meaning(spec: Mapping[str, Any], measured: set[str]) -> None:
    """The dots in words."""
    parts.note(
        f"{changes.told(spec['draws'], spec['probes'])} Fixed weights stay in their places when the others move, so an "
        "asymmetric network can only come as near to the transformed one as they allow; so do the offsets of syre, whose W "
        "moves alone."
    )
    if measured & {"sign", "rescale"}:
        parts.note(
            "<b>What an activation allows.</b> tanh lets a neuron change sign together with the weights that read it; ReLU "
            "lets it grow by any factor that these take back (after a norm, its scale and shift grow). GELU allows neither, so "
            "that rescaling changes the outputs. Fixed zeros hold neither signs nor factors; other fixed weights "
            "hold both, and so does FiGLU’s F."
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
