"""Results of a symmetry study: the permutations that each treatment leaves, what else it leaves, and what it fixes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts, theme
from app.charts import changes, tables
from app.views import inspect
from jobs.inputs import WEIGHTS
from jobs.studies.symmetry import order

Results = Mapping[str, pa.Table]
TABLE_HEADS = ("Two neurons swapped", "All neurons permuted", "One layer scaled", "One layer's rows shifted")

BRIEF = "Permutations of neurons that leave the function as it is"
"""What the numbers of `brief` are."""

NOTHING_FIXED = ("standard", "asym_init")
"""Treatments all of whose weights are trained."""

CERTIFICATES = {
    "forward": "Certificate: layer by layer, no two neurons have the same fixed weights. Colour "
    "refinement agrees after {rounds}.",
    "refinement": "Certificate: colour refinement tells all neurons apart in {rounds}.",
    "interchangeable": "permutations of {neurons} neurons leave the function as it is.",
    "search": "Found by an exhaustive search, with nauty, of what colour refinement leaves after {rounds}.",
    "open": "Not decided: colour refinement stops after {rounds}. The extra “exact” installs nauty, which decides it.",
}
"""How the order is known, by `symcore.symmetry.automorphisms.find`'s names."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec = study["spec"]
    summary, measured = results["summary"].to_pandas(), results["changes"].to_pandas()
    st.html(_cards(spec["treatments"], summary))
    parts.note(
        "Number of permutations of a network's hidden neurons that keep every fixed weight and offset in its place, if there are "
        "others than leaving all as they are. Each gives another network of the same treatment with the same function."
    )
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
    st.html(_cards(treatments, summary) if large else _strip(treatments, summary))


def exports(study: Mapping[str, Any], results: Results) -> dict[str, tuple[str, str]]:
    """What can be downloaded: file name -> (label, content)."""
    frames = {
        "summary": "Orders and changes (CSV)",
        "groups": "Groups of neurons (CSV)",
        "changes": "Every measured change (CSV)",
    }
    return {
        f"{study['study']}-{key}.csv": (label, tables.csv(results[key].to_pandas()))
        for key, label in frames.items()
    }


def _rows(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(row["treatment"]): row for row in summary.to_dict("records")}


def _order(row: Mapping[str, Any]) -> str:
    """The number of permutations as HTML; the identity alone is none."""
    if row["log10_most"] == 0:
        return "None"
    return re.sub(
        r"10\^([\d.]+)",
        r'10<sup style="font-size: 0.62em">\1</sup>',
        order(row["log10_least"], row["log10_most"]),
    )


def _certificate(row: Mapping[str, Any]) -> str:
    rounds = f"{row['rounds']} round{'' if row['rounds'] == 1 else 's'}"
    return CERTIFICATES[row["certificate"]].format(rounds=rounds, neurons=f"{row['neurons']:,}")


def _name(key: str) -> str:
    return f"{tables.swatch(key)}{escape(theme.treatment(key).label)}"


def _cards(treatments: list[str], summary: pd.DataFrame) -> str:
    """A card per treatment: how many permutations it leaves, and how that is known."""
    rows, cards = _rows(summary), []
    for key in treatments:
        value, told = tables.MISSING, "not inspected yet"
        if row := rows.get(key):
            value, told = _order(row), _certificate(row)
        cards.append(
            f'<section class="lab-card"><p class="name">{_name(key)}</p><p class="value">{value}</p>'
            f'<p class="note">{told}</p></section>'
        )
    return f'<div class="lab-cards">{"".join(cards)}</div>'


def _strip(treatments: list[str], summary: pd.DataFrame) -> str:
    rows = _rows(summary)
    told = (
        f"<span><small>{_name(key)}</small><span><b>{_order(rows[key]) if key in rows else tables.MISSING}</b></span></span>"
        for key in treatments
    )
    return f'<div class="lab-strip">{"".join(told)}</div>'


def _table(treatments: list[str], summary: pd.DataFrame) -> str:
    """Changes of every treatment: the mean over draws, and the largest under it."""
    rows = _rows(summary)

    def cell(row: Mapping[str, Any], name: str) -> str:
        mean, most = row.get(f"{name}_mean", math.nan), row.get(f"{name}_max", math.nan)
        return (
            tables.MISSING if math.isnan(mean) else f'{mean:.2g}<span class="spread">, max {most:.2g}</span>'
        )

    heads = "".join(f'<th class="number" scope="col">{head}</th>' for head in TABLE_HEADS)
    body = "".join(
        f'<tr><th scope="row">{_name(key)}</th>'
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
    parts.note(inspect.LEGEND)
    inspect.pictures(parts.lab().run_folder(done[names[chosen]]) / WEIGHTS)
