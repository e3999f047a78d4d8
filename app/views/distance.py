"""A distance run's results: how far apart the networks of each pair are, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries


def draw(run: Mapping[str, Any]) -> None:
    """One row per pair and parameter, over the trained entries."""
    st.subheader("Distance of each parameter", anchor=False)
    frame = queries.records(parts.lab(), "weight_distance", run["run"])
    if frame.empty:
        st.skeleton(height=280)
        return
    number = st.column_config.NumberColumn
    shown = frame[frame["entries"] == "trainable"]
    st.dataframe(
        shown[["pair", "parameter", "distance", "norm_a", "norm_b", "count"]],
        hide_index=True,
        column_config={
            "pair": number("Pair"),
            "parameter": st.column_config.TextColumn("Parameter", width="medium"),
            "distance": number("‖A − B‖", format="%.4f"),
            "norm_a": number("‖A‖", format="%.4f"),
            "norm_b": number("‖B‖", format="%.4f"),
            "count": number("Trained entries"),
        },
        alt="Distance of each parameter of each pair",
    )
