"""A bayes run's results: loss and accuracy by epoch, reliability of its networks' predictions, and what other images look like to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import streamlit as st

from app import parts, queries
from app.views import bnn, train
from jobs.studies import bnn_results

TABLES = train.TABLES | {
    "reliability_bin": "Reliability diagram of each network",
    "entropy_bin": "Histograms of entropies of each network",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The charts of a training, then those of a study of Bayesian networks, for the networks of this run."""
    treatment = queries.treatment(run)
    train.draw(run)
    st.subheader("Reliability", anchor=False)
    bins = _table(run, "reliability_bin", bnn_results.reliabilities)
    bnn.diagrams([treatment], bins, {treatment: ""})
    if run["spec"]["outside"] is not None:
        st.subheader("Entropy of predictions on other images", anchor=False)
        found = _table(run, "entropy_bin", bnn_results.histograms)
        bnn.histograms([treatment], found, run["spec"], {treatment: ""})


def _table(run: Mapping[str, Any], name: str, make: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """What a study makes of one of this run's record tables."""

    def of_roles(records: pa.Table, roles: Mapping[str, str]) -> pa.Table:
        return make(bnn_results.named(records, roles, len(run["spec"]["seeds"])))

    return queries.as_results(parts.lab(), run, "bayes", (name,), of_roles)
