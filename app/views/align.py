"""An align run's results: how well the networks of each pair agree, before and after, and how permutations were learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries, theme
from app.charts import looks

NOTES = {
    "weight_matching": "Weight matching raises the inner product itself and starts as the networks are, so it can only rise.",
    "activation_matching": "Activation matching compares what neurons put out on the same images; the inner product of weights only tells of it.",
    "straight_through": "Straight-through estimation starts at weight matching and lowers the training loss halfway.",
    "sinkhorn": "Sinkhorn re-basin starts as the networks are; of each pair the permutations that were best at any look are kept.",
    "cycle_consistent": "All networks are brought into one order, so that going round any cycle of networks ends where it began.",
}


def draw(run: Mapping[str, Any]) -> None:
    """What is made small by step where permutations are learned; one row per pair."""
    spec = run["spec"]
    written = spec["method"]
    method = written if isinstance(written, Mapping) else {"kind": written}
    if "steps" in method:
        _learning(run, method)
    st.subheader("Agreement of each pair", anchor=False)
    frame = queries.records(parts.lab(), "alignment", run["run"])
    if frame.empty:
        st.skeleton(height=180)
        return
    number = st.column_config.NumberColumn
    st.dataframe(
        frame[["pair", "identity_objective", "objective"]].assign(
            gain=frame["objective"] / frame["identity_objective"],
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
    parts.note(f"Inner product of both networks' weights over all layers. {NOTES[method['kind']]}")


def _learning(run: Mapping[str, Any], method: Mapping[str, Any]) -> None:
    distance = method.get("objective") == "distance"
    title = "Squared distance of weights" if distance else "Training loss halfway"
    st.subheader(f"{title}, with the permutations of each step", anchor=False)
    frame = queries.records(parts.lab(), "alignment_look", run["run"], limit=1_000_000)
    axis = "squared distance |A − πB|²" if distance else "training loss halfway (nats)"
    role = theme.role(queries.treatment(run["studies"]))
    drawing = None if frame.empty else looks.learning(frame, axis, method["steps"], role)
    parts.chart(drawing, looks.HEIGHT, "looks")
    if not frame.empty:
        pairs = frame["pair"].nunique()
        parts.note(
            f"Mean over {pairs} pairs, band one sample standard deviation, hairlines single pairs."
            if pairs > 1
            else "One pair."
        )
