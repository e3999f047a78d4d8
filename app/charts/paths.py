"""Charts of linear mode connectivity: loss or accuracy along the path, and the barriers it makes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels
from app.charts.quantities import ACCURACY, Quantity

HEIGHT = 400
"""Pixels of a chart of few treatments."""
AXIS, ROW = 60, 26
"""Pixels of its horizontal axis, and of a treatment's row at least."""
LISTED = 1.5
"""Where the horizontal axis ends if the treatments' names stand in a list right of the lines."""
WIDTH = 520
"""Pixels that the plot of the paths has at least, on a window of 1280; labels are placed for it."""

HAIRLINES = 40
"""Pairs per treatment that are drawn one by one; means and bands are over all."""


def height(treatments: int) -> int:
    """Pixels of a chart of so many treatments, whose names need room."""
    return max(HEIGHT, AXIS + ROW * treatments)


PLACED = ["treatment", "label", "words", "role", "alpha", "y", "beside", "middle", "mean"]
"""Columns of `label_places`."""


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over pairs at each alpha; one pair without a value leaves no mean.

    Args:
        points: Columns treatment, pair, alpha, value.

    Returns:
        Columns treatment, alpha, mean, low (mean - std), high (mean + std), n.
    """
    grouped = points.groupby(["treatment", "alpha"], sort=False, observed=True)["value"]
    mean, std = grouped.mean(skipna=False), grouped.std().fillna(0.0)
    frame = pd.DataFrame({"mean": mean, "low": mean - std, "high": mean + std, "n": grouped.size()})
    return frame.reset_index()


def domain(points: pd.DataFrame, quantity: Quantity) -> tuple[float, float]:
    """One vertical scale for all treatments: loss from zero, accuracy up to 100 %, with room for the labels."""
    values = points["value"].dropna()
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if quantity is not ACCURACY:
        return min(0.0, low), high * 1.08 or 1.0
    room = max(100.0 - low, 0.5) * 0.05
    return low - room, 100.0 + room


def label_places(means: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """One label per treatment where neither lines nor other labels are; a list right of the lines where that fails.

    Args:
        means: What `summary` returns.
        low: Lower end of the vertical scale.
        high: Upper end of the vertical scale.

    Returns:
        Columns treatment, label, words and role (roles of `theme.ROLES`), alpha, y, beside (whether a leader leads to
        it), middle (alpha of the line's point that is meant), mean (its value). A line with gaps has no label.
    """
    parts = means.groupby("treatment", sort=False)
    lines = {str(key): part.sort_values("alpha")["mean"].to_numpy() for key, part in parts}
    lines = {key: line for key, line in lines.items() if np.isfinite(line).all()}
    texts = {key: theme.treatment(key).label for key in lines}
    plot = labels.Plot(low, high, WIDTH, height(means["treatment"].nunique()) - AXIS)
    boxes = labels.place(lines, texts, plot)
    if labels.collide(boxes.values()):
        boxes = labels.listed(lines, plot)
    rows = []
    for key, box in boxes.items():
        beside = box.anchor is not None
        row: dict[str, object] = {
            "treatment": key,
            "label": texts[key],
            "words": theme.words(theme.role(key)),
            "role": theme.role(key),
        }
        at = box.left / WIDTH if beside else 0.5
        row |= {"alpha": at, "y": plot.value(box.middle), "beside": beside}
        rows.append(row | {"middle": 0.5, "mean": labels.middle(lines[key])})
    return pd.DataFrame(rows, columns=PLACED)


def interpolation(
    points: pd.DataFrame,
    quantity: Quantity,
    split: str,
    span: tuple[float, float] | None = None,
    form: str = "straight path",
) -> alt.LayerChart:
    """Mean line, band of one standard deviation and a hairline per pair for each treatment, all on one scale.

    Args:
        points: Columns treatment, pair, alpha, value (in the unit of `quantity`).
        quantity: What the values are.
        split: The images they were measured on.
        span: Ends of the vertical scale, where charts beside each other share it; none: what the values need.
        form: What the paths are, for those who hear the chart.
    """
    means = summary(points).assign(role=lambda frame: frame["treatment"].map(theme.role))
    low, high = span or domain(points, quantity)
    placed = label_places(means, low, high)
    ticks = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", labelFlush=False)
    across = alt.Scale(domain=[0, LISTED if (placed["alpha"] > 1).any() else 1], nice=False)
    x = alt.X("alpha:Q", title="α (0 = network A, 1 = network B)", scale=across, axis=ticks)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    y = alt.Y("mean:Q", title=quantity.title(split), scale=scale, axis=alt.Axis(tickCount=6, minExtent=38))
    mean = alt.Chart(means).encode(x=x, color=theme.paint("role"), detail="treatment:N")
    shown = hairlines(points).assign(role=lambda frame: frame["treatment"].map(theme.role))
    pair = alt.Chart(shown).encode(
        x=x, y="value:Q", color=theme.paint("role"), detail=["treatment:N", "pair:N"]
    )
    ends = pair.transform_filter(
        (alt.datum.alpha == points["alpha"].min()) | (alt.datum.alpha == points["alpha"].max())
    )
    layers = [
        mean.mark_area(opacity=0.13, clip=True, tooltip=None).encode(y="low:Q", y2="high:Q"),
        pair.mark_line(strokeWidth=1, opacity=0.35, clip=True, tooltip=None),
        mean.mark_line(strokeWidth=2.75, strokeCap="round", clip=True, tooltip=None).encode(y=y),
        ends.mark_circle(size=24, opacity=0.7, tooltip=None),
        *_pointer(means, x, quantity),
        *_labels(placed, x),
    ]
    spoken = f"{quantity.title(split)} along the {form} between two networks, for " + ", ".join(
        theme.treatment(key).label for key in points["treatment"].unique()
    )
    whole = alt.layer(*layers).properties(
        height=height(points["treatment"].nunique()), description=spoken, padding=labels.PADDING
    )
    return theme.styled(whole)


def hairlines(points: pd.DataFrame) -> pd.DataFrame:
    """The points of at most `HAIRLINES` pairs per treatment, spread evenly over the pairs."""
    rank = points.groupby("treatment", sort=False)["pair"].rank(method="dense")
    many = points.groupby("treatment", sort=False)["pair"].transform("nunique")
    keep = np.floor(rank * HAIRLINES / many) > np.floor((rank - 1) * HAIRLINES / many)
    return points[keep | (many <= HAIRLINES)]


def _labels(placed: pd.DataFrame, x: alt.X) -> list[alt.Chart]:
    """Words over their line, beside it with a leader from the point that is meant, or in a list with a dot each."""
    led = placed["beside"].astype(bool)
    over, beside, listed = placed[~led], placed[led & (placed["alpha"] <= 1)], placed[placed["alpha"] > 1]
    leader = alt.Chart(beside.assign(stop=beside["alpha"] - 0.01)).encode(color=theme.paint("role"))
    dot = alt.Chart(listed).encode(x=x, y="y:Q", color=theme.paint("role"))
    return [
        leader.mark_rule(strokeWidth=1, tooltip=None).encode(x="middle:Q", x2="stop:Q", y="mean:Q", y2="y:Q"),
        leader.mark_circle(size=40, opacity=1, tooltip=None).encode(x="middle:Q", y="mean:Q"),
        dot.mark_circle(size=70, opacity=1, tooltip=None),
        *labels.words(over, x, align="center"),
        *labels.words(beside, x, align="left"),
        *labels.words(listed, x, align="left", dx=11),
    ]


def _pointer(means: pd.DataFrame, x: alt.X, quantity: Quantity) -> list[alt.Chart]:
    """A rule at the alpha under the pointer that tells every treatment's mean there."""
    wide = means.pivot_table(index="alpha", columns="treatment", values="mean", sort=False, observed=True)
    names = {key: theme.treatment(key).label for key in wide.columns}
    near = alt.selection_point(
        fields=["alpha"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    told = [alt.Tooltip(f"{name}:Q", format=f".{quantity.digits}f") for name in names.values()]
    rule = alt.Chart(wide.rename(columns=names).reset_index()).mark_rule(strokeWidth=1)
    shown = alt.when(near).then(alt.value(0.9)).otherwise(alt.value(0))
    told = [alt.Tooltip("alpha:Q", title="α", format=".2f"), *told]
    return [rule.encode(x=x, color=theme.fixed("rule"), opacity=shown, tooltip=told).add_params(near)]


LANE, ROW_ROOM = 0.085, 0.34
"""Distance of two lanes of dots, and of the outermost from its row's middle, in rows; many lanes move together."""


def swarm(values: Sequence[float], diameter: float) -> list[int]:
    """A lane per value, 0 or the nearest free one of -1, 1, -2, 2, ..., so that dots in a lane do not touch."""
    lanes: dict[int, list[float]] = {}
    chosen = [0] * len(values)
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        lane = 0
        while any(abs(values[i] - other) < diameter for other in lanes.get(lane, [])):
            lane = -lane if lane < 0 else -lane - 1
        lanes.setdefault(lane, []).append(values[i])
        chosen[i] = lane
    return chosen


def barriers(
    values: pd.DataFrame, order: list[str], axis_title: str, digits: int, what: str = "barrier"
) -> alt.LayerChart:
    """A dot per pair, the mean as a bar and the sample standard deviation as a line; zero is a dashed rule.

    Args:
        values: Columns treatment, pair, value.
        order: Treatments from top to bottom.
        axis_title: What the values are, with their unit.
        digits: Digits after the point in tooltips.
        what: What a value is called in tooltips.
    """
    names = [theme.treatment(key).label for key in order]
    values = values.dropna()
    spread = values.groupby("treatment", sort=False)["value"].agg(["mean", "std"]).fillna(0.0)
    ends = [*values["value"], *(spread["mean"] - spread["std"]), *(spread["mean"] + spread["std"]), 0.0]
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 1.0
    placed = _rows(values, order, 0.9 * room)
    means = (
        placed.groupby(["row", "role"], sort=False)["value"].agg(["mean", "std"]).reset_index().fillna(0.0)
    )
    means = means.assign(top=means["row"] - 0.26, bottom=means["row"] + 0.26)
    means = means.assign(low=means["mean"] - means["std"], high=means["mean"] + means["std"])
    x = alt.X("value:Q", title=axis_title, scale=alt.Scale(domain=[low - room, high + room], nice=False))
    x = x.axis(tickCount=4)
    rows = alt.Axis(
        title=None,
        grid=False,
        values=list(range(len(order))),
        tickCount=len(order),
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelLimit=180,
        minExtent=100,
    )
    y = alt.Y("y:Q", scale=alt.Scale(domain=[len(order) - 0.5, -0.5], nice=False, zero=False), axis=rows)
    mean = alt.Chart(means).encode(color=theme.paint("role"))
    zero = alt.Chart(pd.DataFrame({"value": [0.0]})).mark_rule(strokeDash=[4, 3], strokeWidth=1, tooltip=None)
    told = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("pair:O", title="pair"),
        alt.Tooltip("value:Q", title=what, format=f".{digits}f"),
    ]
    dots = (
        alt.Chart(placed)
        .mark_circle(size=52, opacity=theme.DOTS)
        .encode(x=x, y=y, color=theme.paint("role"), tooltip=told)
    )
    layers = [
        zero.encode(x=x, color=theme.fixed("rule")),
        mean.mark_rule(strokeWidth=1.25, clip=True, tooltip=None).encode(x="low:Q", x2="high:Q", y="row:Q"),
        dots,
        mean.mark_rule(strokeWidth=3, tooltip=None).encode(x="mean:Q", y="top:Q", y2="bottom:Q"),
    ]
    spoken = f"{axis_title}, one dot per pair and the mean, for {', '.join(names)}"
    return theme.styled(alt.layer(*layers).properties(height=height(len(order)), description=spoken))


def _rows(values: pd.DataFrame, order: list[str], diameter: float) -> pd.DataFrame:
    """`values` with a row per treatment, and dots that would touch moved off the row's middle."""
    parts = []
    for row, key in enumerate(order):
        part = values[values["treatment"] == key]
        lanes = np.array(swarm(part["value"].tolist(), diameter), dtype=float)
        offsets = lanes * min(LANE, ROW_ROOM / max(1.0, np.abs(lanes).max(initial=0.0)))
        parts.append(
            part.assign(row=row, y=row + offsets, role=theme.role(key), label=theme.treatment(key).label)
        )
    return pd.concat(parts, ignore_index=True)
