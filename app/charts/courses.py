"""How trainings of several treatments go: a metric over epochs on one scale, mean and spread over networks."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import curves
from app.charts.quantities import ACCURACY, Quantity

HEIGHT = 320
"""Pixels of a chart."""
ROOM = 0.04
"""Of the scale above and below what is drawn."""


def points(table: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Means with their bands in the unit that people read.

    Args:
        table: Columns treatment, name ("test/loss"), epoch, mean, mean_std (in stored units).
        quantity: Whose rows are taken, those on train and test images.

    Returns:
        Columns treatment, label, role, split, epoch, mean, low, high; without what is not a number.
    """
    named = table["name"].str.split("/", expand=True).reindex(columns=[0, 1])
    kept = table.assign(split=named[0], quantity=named[1])
    kept = kept[(kept["quantity"] == quantity.key) & kept["split"].isin(["train", "test"])]
    mean = kept["mean"].astype(float) * quantity.factor
    spread = kept["mean_std"].astype(float).fillna(0.0) * quantity.factor
    found = kept[["treatment", "split", "epoch"]].assign(
        label=kept["treatment"].map(lambda key: theme.treatment(key).label),
        role=kept["treatment"].map(theme.role),
        mean=mean,
        low=mean - spread,
        high=mean + spread,
    )
    return found[np.isfinite(found["mean"])].reset_index(drop=True)


def reached(means: pd.DataFrame, goal: float) -> dict[str, int | None]:
    """By treatment, the first epoch after which the mean on test images is at least `goal`; none where it never is."""
    test = means[means["split"] == "test"]
    first = test[test["mean"] >= goal].groupby("treatment")["epoch"].min()
    return {key: int(first[key]) if key in first else None for key in test["treatment"].unique()}


def domain(means: pd.DataFrame, quantity: Quantity) -> tuple[float, float]:
    """One vertical scale that holds every mean and band; a loss and an accuracy have none below 0."""
    low, high = float(means["low"].min()), float(means["high"].max())
    room = ROOM * (high - low) or ROOM
    ceiling = ACCURACY.factor if quantity is ACCURACY else high + room
    return max(0.0, low - room), min(ceiling, high + room)


def figure(means: pd.DataFrame, quantity: Quantity, epochs: int, goal: float | None = None) -> alt.LayerChart:
    """A line per treatment and split, those of train images dashed, each with its band.

    Args:
        means: What `points` makes, at least one row.
        quantity: What they are.
        epochs: That trainings take, so that the axis stands still while they go on.
        goal: Where a dashed rule stands, in the unit of `quantity`; none: there is none.
    """
    low, high = domain(means, quantity)
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(domain=[0, epochs], nice=False))
    x = x.axis(tickMinStep=1, tickCount=6, labelFlush=8)
    key = ", train images dashed" if "train" in set(means["split"]) else ""
    y = alt.Y("mean:Q", title=f"test {quantity.key} ({quantity.unit}){key}")
    y = y.scale(domain=[low, high], nice=False, zero=False).axis(tickCount=6, minExtent=38, format="~r")
    lines = alt.Chart(means).encode(x=x, color=theme.paint("role"), detail=["treatment:N", "split:N"])
    dash = alt.StrokeDash(
        "split:N",
        scale=alt.Scale(domain=list(curves.DASHES), range=list(curves.DASHES.values())),
        legend=None,
    )
    tips = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("split:N", title="images"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("mean:Q", title=f"mean {quantity.key}", format=f".{quantity.digits}f"),
    ]
    layers = [
        lines.mark_area(opacity=0.14, clip=True, tooltip=None).encode(y="low:Q", y2="high:Q"),
        lines.mark_line(strokeWidth=2.25, clip=True, tooltip=None).encode(y=y, strokeDash=dash),
        lines.mark_circle(size=90, opacity=0, clip=True).encode(y=y, tooltip=tips),
    ]
    if goal is not None and low <= goal <= high:
        at = alt.Chart(pd.DataFrame({"mean": [goal]}))
        rule = at.mark_rule(strokeDash=[4, 3], strokeWidth=1.25, tooltip=None)
        layers.append(rule.encode(y=y, color=theme.fixed("muted")))
    names = ", ".join(means["label"].unique())
    return theme.styled(
        alt.layer(*layers).properties(
            height=HEIGHT, description=f"{quantity.title('test')} by epoch for {names}"
        )
    )
