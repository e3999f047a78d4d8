"""The chart of learned alignment: what is made small, with the hard permutations of each step."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app import theme

HEIGHT = 260
"""Pixels of the chart."""
HAIRLINES = 20
"""Pairs that are drawn one by one; mean and band are over all."""


def summary(looks: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over pairs at each step: columns step, mean, low, high, pairs.

    Args:
        looks: Columns pair, step, value.
    """
    grouped = looks.groupby("step")["value"]
    mean, std = grouped.mean(), grouped.std().fillna(0.0)
    frame = {"mean": mean, "low": mean - std, "high": mean + std, "pairs": grouped.size()}
    return pd.DataFrame(frame).reset_index()


def learning(looks: pd.DataFrame, title: str, steps: int, role: str) -> alt.LayerChart:
    """A mean line with its band, and a hairline per pair.

    Args:
        looks: Columns pair, step, value.
        title: Of the vertical axis, with its unit.
        steps: That the run will take, so that the axis stands still while it goes on.
        role: Colours it, a role of `theme.ROLES`.
    """
    looks = looks.dropna()
    means = summary(looks).assign(role=role)
    few = looks[looks["pair"] < HAIRLINES].assign(role=role)
    x = alt.X("step:Q", title="step", scale=alt.Scale(domain=[0, steps], nice=False)).axis(tickCount=6)
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5, minExtent=44))
    mean = alt.Chart(means).encode(x=x, color=theme.paint("role"))
    told = [
        alt.Tooltip("step:Q"),
        alt.Tooltip("mean:Q", format=".4g"),
        alt.Tooltip("pairs:Q"),
    ]
    layers = [
        mean.mark_area(opacity=0.13, clip=True, tooltip=None).encode(y="low:Q", y2="high:Q"),
        alt.Chart(few)
        .mark_line(strokeWidth=1, opacity=0.35, clip=True, tooltip=None)
        .encode(x=x, y="value:Q", color=theme.paint("role"), detail="pair:N"),
        mean.mark_line(strokeWidth=2.5, clip=True, tooltip=None).encode(y=y),
        mean.mark_circle(size=40, opacity=1).encode(y=y, tooltip=told),
    ]
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=f"{title} by step"))
