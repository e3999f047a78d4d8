"""An align run's results: how well the networks of each pair agree, before and after, and how permutations were learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from app import parts, queries, theme, wording
from app.charts import lanes, looks

BEFORE, AFTER = "identity_objective", "objective"
"""Columns of how well two networks agree."""
NOTES = {
    "weight_matching": "Weight matching raises the inner product itself and starts as the networks are, so it can only rise.",
    "activation_matching": "Activation matching compares what neurons put out on the same images; the inner product of weights only tells of it.",
    "straight_through": "Straight-through estimation starts at weight matching and lowers the training loss halfway.",
    "sinkhorn": "Sinkhorn re-basin starts as the networks are; of each pair the permutations that were best at any look are kept.",
    "cycle_consistent": "All networks are brought into one order, so that going round any cycle of networks ends where it began.",
}


TABLES = {
    "alignment": "Agreement of each pair",
    "alignment_look": "Every look at the permutations",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """What is made small by step where permutations are learned; one row per pair."""
    spec = run["spec"]
    written = spec["method"]
    method = written if isinstance(written, Mapping) else {"kind": written}
    if "steps" in method:
        _learning(run, method)
    st.subheader("Agreement of each pair", anchor=False)
    frame = queries.records(parts.lab(), "alignment", run["run"])
    _agreement(frame, queries.treatment(run))
    parts.note(
        "Inner product of both networks' weights over all layers, before and after the second one's neurons are permuted. A "
        f"dot is a pair, a bar the mean. {NOTES[method['kind']]}"
    )
    if frame.empty:
        return
    number = st.column_config.NumberColumn
    st.dataframe(
        frame[["pair", BEFORE, AFTER]].assign(
            gain=frame[AFTER] / frame[BEFORE],
            sweeps=frame["sweeps"],
            restart=frame["restart"],
        ),
        hide_index=True,
        column_config={
            "pair": number("Pair"),
            "identity_objective": number("Before ⟨A, B⟩", format="%.2f"),
            "objective": number("After ⟨A, πB⟩", format="%.2f"),
            "gain": number("Ratio", format="%.2f"),
            "sweeps": number("Step kept", help="When the permutations that are kept were found.")
            if "steps" in method
            else number("Sweeps", help="Over all layers, until no permutation gained."),
            "restart": number("Restart kept") if method["kind"] == "weight_matching" else None,
        },
        alt="Agreement of each pair before and after alignment",
    )


def _agreement(frame: pd.DataFrame, treatment: str) -> None:
    """A dot per pair, before and after."""
    dots = [frame.assign(row=name, value=frame[name])[["row", "pair", "value"]] for name in (BEFORE, AFTER)]
    shown = pd.concat(dots, ignore_index=True).assign(treatment=treatment)
    rows = {BEFORE: "before, ⟨A, B⟩", AFTER: "after, ⟨A, πB⟩"}
    axis = lanes.Axis("inner product of weights", 2)
    told = [alt.Tooltip("pair:O", title="pair")]
    drawing = None if frame.empty else lanes.figure({"": shown}, rows, [treatment], axis, told)
    parts.chart(drawing, lanes.height(len(rows), 1, headed=False), "agreement", width="content")


def _learning(run: Mapping[str, Any], method: Mapping[str, Any]) -> None:
    distance = method.get("objective") == "distance"
    title = "Squared distance of weights" if distance else "Training loss halfway"
    st.subheader(f"{title}, with the permutations of each step", anchor=False)
    frame = queries.records(parts.lab(), "alignment_look", run["run"])
    axis = "squared distance |A − πB|²" if distance else "training loss halfway (nats)"
    role = theme.role(queries.treatment(run))
    drawing = None if frame.empty else looks.learning(frame, axis, method["steps"], role)
    parts.chart(drawing, looks.HEIGHT, "looks")
    if not frame.empty:
        parts.note(wording.lines(frame["pair"].nunique(), "pair"))
