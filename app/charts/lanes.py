"""Dots in rows and lanes: a row per thing that was measured, in it a lane per treatment, panels side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels
from app.charts.panels import WIDTH, above
from app.charts.ticks import decades, numeric

GAP, BESIDE = 30, 28
"""Pixels between two panels, and right of the last."""
LANE, ROW, CAPTION, HEADING = 13, 14, 64, 22
"""Pixels of a lane, between two rows, below and around a panel, and of what is said above it."""


@dataclass(frozen=True)
class Axis:
    """The horizontal axis that all panels share."""

    title: str
    digits: int
    """Digits after the point in tooltips."""
    log: bool = False
    rule: float | None = None
    """Where a dashed rule stands."""
    middle: str = "mean"
    """What the bar of a lane is: "mean" or "median"."""


def height(rows: int, lanes: int, *, headed: bool = True) -> int:
    """Pixels of a figure; `headed` says whether its panels have headings."""
    return rows * (lanes * LANE + ROW) + CAPTION + (HEADING if headed else 0)


def placed(values: pd.DataFrame, rows: Sequence[str], order: Sequence[str]) -> pd.DataFrame:
    """The values with their places: rows from top to bottom, in each a lane per treatment.

    Args:
        values: Columns row, treatment, value, and others.
        rows: Names of the rows.
        order: Treatments from top to bottom.

    Returns:
        Values of these rows and treatments that are numbers, with y (in rows), role and label (of the treatment).
    """
    kept = values[values["row"].isin(list(rows)) & values["treatment"].isin(list(order))]
    kept = kept[np.isfinite(kept["value"].astype(float))]
    step = LANE / (len(order) * LANE + ROW)
    lane = kept["treatment"].map(list(order).index) - (len(order) - 1) / 2
    return kept.assign(
        y=kept["row"].map(list(rows).index) + lane * step,
        role=kept["treatment"].map(theme.role),
        label=kept["treatment"].map(lambda key: theme.treatment(key).label),
    )


def span(values: pd.Series, axis: Axis) -> tuple[float, float]:
    """One scale for all panels, on which the rule lies and no dot touches an end."""
    numbers = [*values.astype(float), *([] if axis.rule is None else [axis.rule])] or [1.0]
    low, high = min(numbers), max(numbers)
    if axis.log:
        room = (high / low) ** 0.05 * 1.05
        return low / room, high * room
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def figure(
    panels: Mapping[str, pd.DataFrame],
    rows: Mapping[str, str],
    order: Sequence[str],
    axis: Axis,
    told: Sequence[alt.Tooltip],
) -> alt.VConcatChart | None:
    """Panels of dots on one scale; a bar per lane is the mean or median; a circle or a diamond, by the column `shape`.

    Args:
        panels: By heading, columns row, treatment, value, and what `told` reads; where there is a column `shape`, "diamond"
            draws that, hollow.
        rows: Names of the rows and what is said of them, from top to bottom.
        order: Treatments from top to bottom within a row.
        axis: What they share.
        told: Tooltips beside treatment and value.

    Returns:
        The figure; none where there is no value.
    """
    dots = {heading: placed(values, list(rows), order) for heading, values in panels.items()}
    if axis.log:
        dots = {heading: points[points["value"] > 0] for heading, points in dots.items()}
    everything = pd.concat([points["value"] for points in dots.values()])
    if everything.empty:
        return None
    low, high = span(everything, axis)
    names = max((len(name) for name in rows.values()), default=0)
    beside = round(0.55 * labels.FONT * names) + 24
    width = (WIDTH - beside - BESIDE - GAP * (len(panels) - 1)) // len(panels)
    drawn = [
        _panel(heading, points, rows, order, axis, (low, high), told, width, first=not place)
        for place, (heading, points) in enumerate(dots.items())
    ]
    spoken = f"{axis.title}, a dot each and the {axis.middle}: {'; '.join(panels)}; for " + ", ".join(
        theme.treatment(key).label for key in order
    )
    whole = alt.vconcat(
        alt.hconcat(*drawn, spacing=GAP, bounds="flush"),
        autosize=alt.AutoSizeParams(type="pad", contains="padding"),
        description=spoken,
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(color="shared")),
    )
    return theme.styled(whole)


def _panel(
    heading: str,
    points: pd.DataFrame,
    rows: Mapping[str, str],
    order: Sequence[str],
    axis: Axis,
    ends: tuple[float, float],
    told: Sequence[alt.Tooltip],
    width: int,
    *,
    first: bool,
) -> alt.LayerChart:
    """One panel; only the first says what its rows are."""
    marks = decades(*ends) if axis.log else []
    ticks = alt.Axis(tickCount=len(marks) or 4, format="~g", labelFlush=False, values=marks or alt.Undefined)
    x = alt.X("value:Q", title=axis.title, scale=numeric(*ends, log=axis.log), axis=ticks)
    named = alt.Axis(
        title=None,
        grid=False,
        values=list(range(len(rows))),
        tickCount=len(rows),
        labelExpr=f"{json.dumps(list(rows.values()))}[datum.value]",
        labelLimit=260,
    )
    upright = alt.Scale(domain=[len(rows) - 0.5, -0.5], nice=False, zero=False)
    y = alt.Y("y:Q", scale=upright, title=None, axis=named if first else None)
    half = 0.38 * LANE / (len(order) * LANE + ROW)  # of a bar, in rows
    layers = [*_rules(rows, axis, x, y), *_dots(points, axis, x, y, told, half)]
    pixels = len(rows) * (len(order) * LANE + ROW)
    return alt.layer(*layers, width=width, height=pixels, title=above(heading) if heading else alt.Undefined)


def _rules(rows: Mapping[str, str], axis: Axis, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Lines between rows, and the dashed one."""
    between = alt.Chart(pd.DataFrame({"y": np.arange(len(rows) - 1) + 0.5}))
    drawn = [
        between.mark_rule(strokeWidth=1, opacity=0.35, tooltip=None).encode(y=y, color=theme.fixed("rule"))
    ]
    if axis.rule is not None:
        at = alt.Chart(pd.DataFrame({"value": [axis.rule]}))
        dashed = at.mark_rule(strokeDash=[4, 3], strokeWidth=1.25, tooltip=None)
        drawn.append(dashed.encode(x=x, color=theme.fixed("muted")))
    return drawn


def _dots(
    points: pd.DataFrame, axis: Axis, x: alt.X, y: alt.Y, told: Sequence[alt.Tooltip], half: float
) -> list[alt.Chart]:
    """The values, and over them a bar per lane and shape."""
    points = points if "shape" in points else points.assign(shape="circle")
    tips = [
        alt.Tooltip("label:N", title="treatment"),
        *told,
        alt.Tooltip("value:Q", title="value", format=f".{axis.digits}f"),
    ]
    lanes = points.groupby(["y", "role", "shape"], sort=False)["value"]
    bars = lanes.agg(axis.middle).reset_index()
    bars = bars.assign(top=bars["y"] - half, bottom=bars["y"] + half)
    full, hollow = (points[points["shape"] == shape] for shape in ("circle", "diamond"))
    return [
        alt.Chart(full)
        .mark_circle(size=42, opacity=theme.DOTS)
        .encode(x=x, y=y, color=theme.paint("role"), tooltip=tips),
        alt.Chart(hollow)
        .mark_point(shape="diamond", size=46, filled=False, strokeWidth=1.5, opacity=0.9)
        .encode(x=x, y=y, color=theme.paint("role"), tooltip=tips),
        alt.Chart(bars)
        .mark_rule(strokeWidth=2.75, tooltip=None)
        .encode(x=x, y="top:Q", y2="bottom:Q", color=theme.paint("role")),
    ]
