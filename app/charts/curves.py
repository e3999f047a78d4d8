"""Charts of training: a metric over epochs, mean and spread over the members of a population."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels
from app.charts.quantities import Quantity
from app.charts.ticks import decades, numeric

HEIGHT = 300
"""Pixels of a chart."""
PLOT = 240
"""Pixels of its plot, without the axis."""
DASHES = {"train": [5, 3], "val": [2, 2], "test": [1, 0]}
"""How the splits are told apart, beside their labels."""
ROOM = 1.14
"""The horizontal axis runs on past the last epoch by this factor, to hold the labels."""


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over members at each step.

    Args:
        points: Columns split, member, step, value.

    Returns:
        Columns split, step, mean, low, high.
    """
    grouped = points.groupby(["split", "step"], sort=False)["value"]
    mean, std = grouped.mean(), grouped.std().fillna(0.0)
    return pd.DataFrame({"mean": mean, "low": mean - std, "high": mean + std}).reset_index()


def domain(points: pd.DataFrame, quantity: Quantity, *, log: bool) -> tuple[float, float]:
    """The vertical scale: loss from zero (or from its least value, if logarithmic), accuracy up to 100 %."""
    values = points["value"]
    if quantity.key == "accuracy":
        return float(values.min()) - 0.02 * (100.0 - float(values.min())) - 0.1, 100.0
    if log:
        positive = values[values > 0]
        return float(positive.min()) * 0.8, float(positive.max()) * 1.1
    return 0.0, float(values.max()) * 1.05 or 1.0


HAIRLINES = 20
"""Members that are drawn one by one; means and bands are over all."""
STEPS = 60
"""Steps of a hairline at most."""


def hairlines(points: pd.DataFrame) -> pd.DataFrame:
    """The points of some members at some steps, the first and last among them."""
    members, steps = np.sort(points["member"].unique()), np.sort(points["step"].unique())
    some = members[:: max(1, math.ceil(len(members) / HAIRLINES))]
    at = steps[np.unique(np.linspace(0, len(steps) - 1, min(STEPS, len(steps))).astype(int))]
    return points[points["member"].isin(some) & points["step"].isin(at)]


def training(
    points: pd.DataFrame, quantity: Quantity, steps: int, role: str, *, log: bool = False
) -> alt.LayerChart:
    """A mean line, a band of one standard deviation and a hairline per member for each split.

    Args:
        points: Columns split, member, step, value (in the unit of `quantity`).
        quantity: What the values are.
        steps: Epochs that the run will have, so that the axis stands still while it goes on.
        role: Colours the lines, a role of `theme.ROLES`.
        log: Logarithmic vertical axis; values that are not positive are left out.

    Returns:
        The chart; where no value can be drawn, the words that say so.
    """
    points = points[points["value"] > 0] if log else points.dropna()
    if points.empty:
        return _nothing(f"no {quantity.key} {'above zero' if log else 'that is a number'}")
    low, high = domain(points, quantity, log=log)
    means = summary(points).assign(role=role)
    means["low"] = means["low"].clip(lower=low)
    x = alt.X("step:Q", title="epoch", scale=alt.Scale(domain=[0, steps * ROOM], nice=False))
    x = x.axis(tickMinStep=1, tickCount=6, labelExpr=f"datum.value > {steps} ? '' : datum.label")
    marks = decades(low, high) if log else []
    axis = alt.Axis(tickCount=len(marks) or 5, minExtent=44, format="~r", values=marks or alt.Undefined)
    title = f"{quantity.key} ({quantity.unit})"
    y = alt.Y("mean:Q", title=title, scale=numeric(low, high, log=log), axis=axis)
    dash = alt.StrokeDash(
        "split:N", scale=alt.Scale(domain=list(DASHES), range=list(DASHES.values())), legend=None
    )
    mean = alt.Chart(means).encode(x=x, color=theme.paint("role"), detail="split:N")
    member = alt.Chart(hairlines(points).assign(role=role)).encode(
        x=x, y="value:Q", color=theme.paint("role"), detail=["split:N", "member:N"]
    )
    told = [
        alt.Tooltip("split:N"),
        alt.Tooltip("step:Q", title="epoch"),
        alt.Tooltip("mean:Q", title=f"mean {quantity.key}", format=f".{quantity.digits}f"),
    ]
    layers = [
        mean.mark_area(opacity=0.12, clip=True, tooltip=None).encode(y="low:Q", y2="high:Q"),
        member.mark_line(strokeWidth=0.75, opacity=0.25, clip=True, tooltip=None),
        mean.mark_line(strokeWidth=2.25, clip=True, tooltip=None).encode(y=y, strokeDash=dash),
        mean.mark_circle(size=90, opacity=0).encode(y=y, tooltip=told),
        *labels.words(ends(means, (low, high), role, log=log), x, align="left"),
    ]
    spoken = f"{quantity.key} ({quantity.unit}) by epoch for " + ", ".join(means["split"].unique())
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=spoken))


def _nothing(told: str) -> alt.LayerChart:
    """Words in the place of a chart."""
    words = pd.DataFrame({"told": [told], "role": ["muted"]})
    text = alt.Chart(words).encode(text="told:N", color=theme.paint("role"))
    drawn = alt.layer(text.mark_text(fontSize=labels.FONT, tooltip=None))
    return theme.styled(drawn.properties(height=HEIGHT, description=told))


def ends(means: pd.DataFrame, scale: tuple[float, float], role: str, *, log: bool) -> pd.DataFrame:
    """A label per split right of its last point, none overlapping.

    Args:
        means: What `summary` returns.
        scale: Lower and upper end of the vertical scale.
        role: Of the lines.
        log: Whether the scale is logarithmic.

    Returns:
        Columns split, step, y, label, words.
    """
    last = means.sort_values("step").groupby("split", sort=False).tail(1)
    forth, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    low, high = (float(forth(end)) for end in scale)
    pixel = (high - low) / PLOT
    wanted = [float(forth(value)) for value in last["mean"]]
    placed = labels.spread(wanted, labels.GAP * pixel, low + 8 * pixel, high - 8 * pixel)
    width = float(means["step"].max()) * 0.015
    return pd.DataFrame(
        {
            "split": last["split"].tolist(),
            "step": (last["step"] + width).tolist(),
            "y": [float(back(value)) for value in placed],
            "label": last["split"].tolist(),
            "words": theme.words(role) if role in theme.TREATMENTS else "accent",
        }
    )
