"""An inspect run's results: its permutations, its measured changes, and pictures of what is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
import torch

from app import parts, queries
from app.charts import changes, galleries, masks, orders
from jobs.inputs import WEIGHTS
from symcore.population import load

PIXELS = (
    "A pixel is one weight, its colour what is fixed of it: the greater, the stronger; pale where all of it is trained. Rows "
    "are the neurons that a layer computes, columns what it reads; biases stand in one row."
)
"""What the pictures show."""
TABLES = {
    "symmetry_order": "Permutations that are left",
    "symmetry_group": "Groups of neurons",
    "symmetry_change": "Every measured change",
}
"""What the record tables are called."""


def draw(run: Mapping[str, Any]) -> None:
    """The permutations that are left, a dot and a row per transformation, the groups of neurons, and the pictures."""
    lab = parts.lab()
    groups, measured = (
        queries.records(lab, table, run["run"]) for table in ("symmetry_group", "symmetry_change")
    )
    treatment = queries.treatment(run)
    found = queries.records(lab, "symmetry_order", run["run"])
    st.html(orders.cards([treatment], found.assign(treatment=treatment, neurons=groups["size"].sum())))
    parts.note(orders.TOLD)
    st.subheader("Change under each transformation", anchor=False)
    shown = measured.assign(treatment=treatment)
    chart = None if shown.empty else changes.dots(shown, [treatment])
    parts.chart(chart, changes.height(1), "changes")
    parts.note(changes.told(run["spec"]["draws"], run["spec"]["probes"]))
    if not shown.empty:
        st.html(changes.table(shown, [treatment]))
        parts.note(changes.UNITS)
    st.subheader("Neurons", anchor=False)
    if groups.empty:
        st.skeleton(height=140)
        return
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        groups,
        hide_index=True,
        column_config={
            "group": text("Layer"),
            "size": number("Neurons"),
            "cells": number("Told apart", help="Classes of neurons that colour refinement tells apart."),
            "axes": text("Weights", width="large", help="Parameters and the axes on which the neurons lie."),
        },
        alt="Groups of neurons",
    )
    st.subheader("What is fixed", anchor=False)
    pictures(lab.run_folder(run["run"]) / WEIGHTS, treatment)


def pictures(weights: Path, treatment: str) -> None:
    """A picture for each layer of the network in a file, or why there is none; `treatment` names the files."""
    if not weights.is_file():
        parts.note("The network's file is gone from the run's folder, so that its masks cannot be drawn.")
        return
    drawn = fixed_layers(weights)
    if not drawn:
        parts.note("Nothing: every weight is trained.")
        return
    parts.note(PIXELS)
    parts.chart(galleries.figure(drawn), galleries.height(drawn), f"masks-{treatment}", width="content")


@lru_cache(maxsize=64)
def fixed_layers(weights: Path) -> tuple[masks.Picture, ...]:
    """What the network in a file holds fixed: F beside D, or FiGLU's F; a run's file never changes.

    Of biases and norms, those that are not trained.
    """
    network = load(weights)
    order = [*dict(network.network.named_buffers()), *network.parameters]
    trainable = {
        name: torch.zeros_like(b, dtype=torch.bool) for name, b in network.buffers.items() if b.ndim > 1
    }
    fixed = {name: network.buffers[name] for name in trainable}
    if network.asymmetry is not None:
        trainable, fixed = trainable | network.asymmetry.trainable, fixed | network.asymmetry.fixed
    return tuple(
        masks.picture(_layer(name), fixed[name], trainable[name])
        for name in order
        if name in fixed and (fixed[name].ndim > 1 or not trainable[name].all())
    )


def _layer(name: str) -> str:
    """A layer by its name; one of several parameters keeps its own where it is no weight."""
    return name if name.endswith(".bias") else name.rpartition(".")[0] or name
