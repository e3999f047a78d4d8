"""A valley run's results: the loss along slices through its networks, and how lopsided they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app import parts, queries, wording
from app.views import valleys
from jobs.studies import valleys_results

TABLES = {
    "valley_point": "All points of slices",
    "valley_slice": "Lengths of slices",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The charts of a study of valleys, for the networks of this run."""
    spec, treatment = run["spec"], queries.treatment(run)
    table = queries.as_results(parts.lab(), run, "valley", ("valley_point",), valleys_results.slices)
    st.subheader("Slices through networks", anchor=False)
    valleys.panels([treatment], spec["directions"], table, spec["splits"])
    averaged = f"the last {wording.count(spec['averaged'], 'snapshot')}"
    onward = bool(spec.get("average_of"))
    parts.note(valleys.explained(spec, len(spec["members"]), averaged, spec["splits"], onward=onward))
    st.subheader("How lopsided valleys are", anchor=False)
    valleys.asymmetry([treatment], spec["directions"], valleys_results.valleys(table), spec["splits"])
