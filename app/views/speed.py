"""Results of a training speed study: epochs to an accuracy over the grid, and what the networks end at."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import streamlit as st

from app import parts
from app.charts import grids, tables
from app.charts.quantities import ACCURACY, LOSS, QUANTITIES, Quantity
from app.charts.tables import Column

Results = Mapping[str, pa.Table]
LISTED = 6
"""Layers whose settings a tooltip lists one by one."""


def draw(study: Mapping[str, Any], results: Results) -> None:
    """The view, with a dash or a placeholder for what is not there yet."""
    spec, summary = study["spec"], results["summary"].to_pandas()
    with st.container(horizontal=True, gap="medium"):
        quantity = QUANTITIES[parts.choice("At the end", "quantity", list(reversed(QUANTITIES)))]
    st.html(_cards(summary))
    parts.note(
        f"Epochs until {_goal(spec)} for the first time: the median over {spec['networks']} networks. A network that does "
        f"not get there in {spec['training']['epochs']} epochs counts as slower than all that do, so the median is known "
        "while more than half get there."
    )
    _maps(spec, summary, quantity)
    parts.note(
        f"In both maps dark is good. A cell is {spec['networks']} W-Asymmetric networks, from the same seeds in each. Both settings are factors of the "
        "study's own n_fix and κ, layer by layer; where a factor asks for more than a row has, the whole row is fixed."
    )
    _table(study["study"], spec, summary)


BRIEF = "Epochs to the accuracy, median (standard networks, the fastest and the slowest cell)"
"""What the numbers of `brief` are."""


def brief(study: Mapping[str, Any], results: Results, *, large: bool = False) -> None:
    """The answer alone, in one line or as cards."""
    del study
    summary = results["summary"].to_pandas()
    if large:
        st.html(_cards(summary))
        return
    st.html(
        tables.answers(
            (row["treatment"], name, f"<b>{_epochs(row)}</b>") for name, row in _notable(summary).items()
        )
    )


TABLES = {"summary": "Standard networks and all cells", "networks": "Every network"}
"""What the result tables are called."""
GRID, GRID_TOLD = "grid", "The grid as arrays"
"""Name and label of the arrays that `arrays` makes."""


ARRAYS = ("epochs_median", "reached", "final_test_loss", "final_test_accuracy")
"""Columns of the summary that are arrays over the grid."""


def arrays(study: Mapping[str, Any], results: Results) -> dict[str, np.ndarray]:
    """The factors, and over them arrays [factor of kappa, factor of n_fix]; NaN where nothing is known."""
    columns, rows = study["spec"]["n_fix_factors"], study["spec"]["kappa_factors"]
    cells = _grid(results["summary"].to_pandas()).set_index(["kappa_factor", "n_fix_factor"])
    found = {"n_fix_factors": np.array(columns), "kappa_factors": np.array(rows)}
    for name in ARRAYS:
        found[name] = cells[name].unstack().reindex(index=rows, columns=columns).to_numpy(dtype=float)
    return found


def _goal(spec: Mapping[str, Any]) -> str:
    return f"the {spec['split']} accuracy is at least {spec['accuracy'] * ACCURACY.factor:g} %"


def _grid(summary: pd.DataFrame) -> pd.DataFrame:
    return summary[summary["n_fix_factor"].notna()]


def _notable(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows that the answer consists of by their names, as far as they are done."""
    grid = _grid(summary)
    slowness = grid["epochs_median"].fillna(float("inf"))
    found = {"Standard": summary[summary["treatment"] == "standard"]}
    if len(grid):
        found |= {"W, fastest": grid.loc[[slowness.idxmin()]], "W, slowest": grid.loc[[slowness.idxmax()]]}
    return {name: rows.to_dict("records")[0] for name, rows in found.items() if len(rows)}


def _epochs(row: Mapping[str, Any]) -> str:
    """The median number of epochs, or how many were not enough."""
    return f"&gt; {row['epochs_given']}" if math.isnan(row["epochs_median"]) else f"{row['epochs_median']:g}"


def _cards(summary: pd.DataFrame) -> str:
    """Cards for the standard networks and the two ends of the grid."""
    notable, drawn = _notable(summary), []
    for name in ("Standard", "W, fastest", "W, slowest"):
        treatment = "standard" if name == "Standard" else "w"
        if name not in notable:
            drawn.append(tables.card(treatment, tables.MISSING, "not trained yet", name))
            continue
        row = notable[name]
        told = f"{row['reached']} of {row['networks']} got there"
        if treatment == "w":
            told = f"n_fix ×{row['n_fix_factor']:g}, κ ×{row['kappa_factor']:g} · {told}"
        accuracy = tables.with_spread(*_ending(row, ACCURACY), ACCURACY.digits, ACCURACY.digits)
        loss = tables.with_spread(*_ending(row, LOSS), LOSS.digits, LOSS.digits)
        value = f"{_epochs(row)} <span>epochs</span>"
        drawn.append(
            tables.card(treatment, value, f"{told}<br>then test accuracy {accuracy} %, loss {loss}", name)
        )
    return f'<div class="lab-cards">{"".join(drawn)}</div>'


def _ending(row: Mapping[str, Any], quantity: Quantity) -> tuple[float, float]:
    """What networks have at the end on the test images, mean and spread, in the unit that people read."""
    name = f"final_test_{quantity.key}"
    return row[name] * quantity.factor, row[f"{name}_std"] * quantity.factor


def _maps(spec: Mapping[str, Any], summary: pd.DataFrame, quantity: Quantity) -> None:
    """Both heat maps; their place is kept until a cell is done."""
    cells = _grid(summary)
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Epochs to the accuracy", anchor=False)
        parts.chart(_epochs_map(spec, cells) if len(cells) else None, grids.HEIGHT, "epochs")
    with right:
        st.subheader(f"Test {quantity.key} at the end", anchor=False)
        parts.chart(_ending_map(spec, cells, quantity) if len(cells) else None, grids.HEIGHT, "ending")


def _epochs_map(spec: Mapping[str, Any], cells: pd.DataFrame) -> alt.LayerChart:
    def words(row: Mapping[str, Any]) -> str:
        number = html.unescape(_epochs(row))
        return (
            number
            if row["reached"] == row["networks"]
            else f"{number}\n{row['reached']} of {row['networks']}"
        )

    shown = cells.assign(value=cells["epochs_median"], text=[words(row) for row in cells.to_dict("records")])
    told = [
        alt.Tooltip("epochs_least:Q", title="fewest epochs"),
        alt.Tooltip("text:N", title="median"),
        alt.Tooltip("epochs_most:Q", title="most epochs"),
        alt.Tooltip("reached:Q", title="got there"),
    ]
    return _map(spec, shown, ["epochs", "(median)"], told, log=True, digits="d")


def _ending_map(spec: Mapping[str, Any], cells: pd.DataFrame, quantity: Quantity) -> alt.LayerChart:
    endings = [_ending(row, quantity) for row in cells.to_dict("records")]
    digits = quantity.digits if quantity is ACCURACY else quantity.digits - 1
    shown = cells.assign(
        value=[mean for mean, _ in endings],
        text=[tables.number(mean, digits) for mean, _ in endings],
        spread=[std for _, std in endings],
    )
    form = f".{quantity.digits}f"
    told = [
        alt.Tooltip("value:Q", title=f"mean ({quantity.unit})", format=form),
        alt.Tooltip("spread:Q", title="standard deviation", format=form),
        alt.Tooltip("networks:Q", title="networks"),
    ]
    title = ["test", quantity.key, f"({quantity.unit})"]
    good = quantity is ACCURACY
    return _map(spec, shown, title, told, log=False, digits=f".{digits}f", high_is_good=good)


def _map(
    spec: Mapping[str, Any],
    cells: pd.DataFrame,
    title: list[str],
    told: list[alt.Tooltip],
    *,
    log: bool,
    digits: str,
    high_is_good: bool = False,
) -> alt.LayerChart:
    shown = cells.assign(
        fixed=cells["n_fix"].map(lambda layers: _listed(layers, "d")),
        strength=cells["kappa"].map(lambda layers: _listed(layers, "g")),
    )
    kept = ["n_fix_factor", "kappa_factor", "value", "text", "fixed", "strength"]
    kept += [tip.shorthand.partition(":")[0] for tip in told]
    settings = [alt.Tooltip("fixed:N", title="n_fix"), alt.Tooltip("strength:N", title="κ")]
    return grids.heat_map(
        shown[list(dict.fromkeys(kept))],
        spec["n_fix_factors"],
        spec["kappa_factors"],
        title=title,
        log=log,
        digits=digits,
        told=[*settings, *told],
        high_is_good=high_is_good,
    )


def _listed(layers: Sequence[float], form: str) -> str:
    """A setting of every layer; of many layers where it lies."""
    values = [format(value, form) for value in layers]
    if len(set(values)) == 1:
        return values[0]
    if len(values) <= LISTED:
        return ", ".join(values)
    return f"{min(layers):{form}} to {max(layers):{form}}"


def _table(study: str, spec: Mapping[str, Any], summary: pd.DataFrame) -> None:
    """The numbers of every cell, and the buttons that hand them out."""
    parts.table(
        list(summary["treatment"]),
        _columns(summary),
        summary,
        study,
        hint="At full precision, train images too; in nats, and accuracy from 0 to 1.",
        note=f"epochs until {_goal(spec)}, median over networks; mean and sample standard deviation at the end",
    )


def _columns(summary: pd.DataFrame) -> list[Column]:
    def ending(quantity: Quantity) -> Column:
        cells = [_ending(row, quantity) for row in summary.to_dict("records")]
        return Column(f"Test {quantity.key}", quantity.unit, cells, quantity.digits, quantity.digits)

    return [
        Column.of(summary, "n_fix_factor", "n_fix", "factor", 2),
        Column.of(summary, "kappa_factor", "κ", "factor", 2),
        Column.of(summary, "epochs_median", "Epochs", "median", 1),
        Column.of(summary, "reached", "Got there", "n", 0),
        Column.of(summary, "networks", "Networks", "n", 0),
        ending(LOSS),
        ending(ACCURACY),
    ]
