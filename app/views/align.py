"""An align run's results: how well the networks of each pair agree, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries


def draw(run: Mapping[str, Any]) -> None:
    """One row per pair."""
    st.subheader("Agreement of each pair", anchor=False)
    frame = queries.records(parts.lab(), "alignment", run["run"])
    if frame.empty:
        st.skeleton(height=180)
        return
    gain = frame["objective"] / frame["identity_objective"]
    number = st.column_config.NumberColumn
    st.dataframe(
        frame[["pair", "identity_objective", "objective"]].assign(
            gain=gain, sweeps=frame["sweeps"], restart=frame["restart"]
        ),
        hide_index=True,
        column_config={
            "pair": number("Pair"),
            "identity_objective": number("Before ⟨A, B⟩", format="%.2f"),
            "objective": number("After ⟨A, πB⟩", format="%.2f"),
            "gain": number("Ratio", format="%.2f"),
            "sweeps": number("Sweeps", help="Over all layers, until no permutation gained."),
            "restart": number("Restart kept"),
        },
        alt="Agreement of each pair before and after alignment",
    )
    parts.note(
        "Inner product of both networks' weights over all layers; matching starts as they are, so it can only rise."
    )
