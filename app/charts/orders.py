"""How many permutations and sign changes of its neurons a network has left, and how that is known: cards, and a line for lists."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from app import theme
from app.charts import tables
from jobs.studies.symmetry import order

CERTIFICATES = {
    "forward": "Certificate: layer by layer, no two neurons have the same fixed weights. Colour "
    "refinement agrees after {rounds}.",
    "refinement": "Certificate: colour refinement tells all neurons apart in {rounds}.",
    "interchangeable": "permutations of {neurons} neurons leave the function as it is.",
    "search": "Found by an exhaustive search, with nauty, of what colour refinement leaves after {rounds}.",
    "open": "Not decided: colour refinement stops after {rounds}. The extra “exact” installs nauty, which decides it.",
}
"""How the order is known, by `symcore.symmetry.automorphisms.find`'s names."""

TOLD = (
    "Number of permutations of a network's hidden neurons that keep every fixed weight and offset in its place, if there are "
    "others than leaving all as they are. Each gives another network of the same treatment with the same function."
)
"""What the numbers are."""


def by_treatment(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of a summary by their treatment."""
    return {str(row["treatment"]): row for row in summary.to_dict("records")}


def number(row: Mapping[str, Any]) -> str:
    """The number of permutations as HTML; the identity alone is none."""
    if row["log10_most"] == 0:
        return "None"
    return raised(order(row["log10_least"], row["log10_most"]))


def raised(told: str) -> str:
    """Powers in an order as HTML."""
    return re.sub(r"(\d+)\^([\d.]+)", r'\1<sup style="font-size: 0.62em">\2</sup>', told)


def signs(row: Mapping[str, Any]) -> str:
    """What is left of the sign changes, as HTML; nothing where no neuron could change sign, or a run did not ask."""
    if pd.isna(row["flippable"]) or not row["flippable"]:
        return ""
    if not row["sign_changes"]:
        return (
            " No sign change of neurons is left either."
            if row["log10_most"] == 0
            else " No sign change is left."
        )
    changes = raised(f"2^{row['sign_changes']:.0f}")
    if row["signed_log10_most"] == row["sign_changes"] * math.log10(2):
        return f" No permutation; {changes} sign changes remain."
    group = raised(order(row["signed_log10_least"], row["signed_log10_most"]))
    return f" {changes} sign changes are left too: {group} signed permutations."


def certificate(row: Mapping[str, Any]) -> str:
    """How that number is known."""
    rounds = f"{row['rounds']} round{'' if row['rounds'] == 1 else 's'}"
    return CERTIFICATES[row["certificate"]].format(rounds=rounds, neurons=f"{row['neurons']:,}") + signs(row)


def cards(treatments: Sequence[str], summary: pd.DataFrame) -> str:
    """A card per treatment, as HTML.

    Args:
        treatments: In order.
        summary: Columns treatment, log10_least, log10_most, certificate, rounds, neurons, and those of signs; a row
            for each that is done.
    """
    rows = by_treatment(summary)
    drawn = [
        tables.card(key, number(rows[key]), certificate(rows[key]))
        if key in rows
        else tables.card(key, tables.MISSING, "not inspected yet")
        for key in treatments
    ]
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def strip(treatments: Sequence[str], summary: pd.DataFrame) -> str:
    """The numbers in one line, as HTML, for lists of studies."""
    rows = by_treatment(summary)
    return tables.answers(
        (
            key,
            theme.treatment(key).label,
            f"<b>{number(rows[key]) if key in rows else tables.MISSING}</b>",
        )
        for key in treatments
    )
