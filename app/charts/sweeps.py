"""The chart of a study that varies one setting: barriers of every pair, treatment beside treatment in each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from app import theme
from app.charts import labels
from app.charts.paths import swarm

HEIGHT = 420
"""Pixels of a chart."""
PLOT = 320
"""Pixels of its plot, above two lines of names."""
BETWEEN = 0.55
"""Room between two settings, in places."""
LANE, ROOM = 0.07, 0.28
"""Distance of two lanes of dots, and of the outermost from its place's middle, in places."""
BESIDE = 0.34
"""How far right of a place the paper's number stands, in places."""


@dataclass(frozen=True)
class Place:
    """Where one treatment of one setting is drawn."""

    value: float | None
    treatment: str
    heading: str
    """What the setting is, in words."""


def positions(places: Sequence[Place]) -> list[float]:
    """Where places lie, one apart, and more where a setting ends."""
    settings = list(dict.fromkeys(place.value for place in places))
    return [at + BETWEEN * settings.index(place.value) for at, place in enumerate(places)]


def barriers(
    pairs: pd.DataFrame,
    places: Sequence[Place],
    title: str,
    digits: int,
    paper: Mapping[Place, tuple[float, float]],
) -> alt.LayerChart:
    """A dot per pair, the mean as a bar, one sample standard deviation as a line; beside it the paper's, hollow.

    Args:
        pairs: Columns value (the setting), treatment, pair, barrier.
        places: All that is planned, setting by setting.
        title: What the barrier is, with its unit.
        digits: Digits after the point in tooltips.
        paper: What the paper measured, mean and spread, where it compares.
    """
    where = dict(zip(places, positions(places), strict=True))
    ends = [mean + sign * std for mean, std in paper.values() for sign in (-1, 1)]
    low, high = min(0.0, *pairs["barrier"], *ends, 0.0), max(0.0, *pairs["barrier"], *ends, 0.0)
    room = 0.06 * (high - low) or 1.0
    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=[-0.7, max(where.values()) + 0.7], nice=False, zero=False),
        axis=alt.Axis(title=None, labels=False, grid=False, values=[]),
    )
    y_scale = alt.Scale(domain=[low - room, high + room], nice=False, zero=False)
    y = alt.Y("barrier:Q", title=title, scale=y_scale, axis=alt.Axis(tickCount=6, minExtent=38))
    dots, means = _dots(pairs, where, 0.55 * room), _means(pairs, where)
    told = [
        alt.Tooltip("label:N", title="treatment"),
        alt.Tooltip("heading:N", title="setting"),
        alt.Tooltip("pair:O", title="pair"),
        alt.Tooltip("barrier:Q", format=f".{digits}f"),
    ]
    mean = alt.Chart(means).encode(color=theme.paint("role"))
    zero = alt.Chart(pd.DataFrame({"barrier": [0.0]})).mark_rule(
        strokeDash=[4, 3], strokeWidth=1, tooltip=None
    )
    layers = [
        zero.encode(y=y, color=theme.fixed("rule")),
        mean.mark_rule(strokeWidth=1.25, tooltip=None).encode(x=x, y="low:Q", y2="high:Q"),
        alt.Chart(dots)
        .mark_circle(size=52, opacity=theme.DOTS)
        .encode(x=x, y=y, color=theme.paint("role"), tooltip=told),
        mean.mark_rule(strokeWidth=3, tooltip=None).encode(x="left:Q", x2="right:Q", y="barrier:Q"),
        *_paper(paper, where, x, y, digits),
        *_names(where, x),
    ]
    spoken = f"{title}, one dot per pair and the mean, for " + ", ".join(
        f"{theme.treatment(place.treatment).label} {place.heading}".strip() for place in places
    )
    return theme.styled(alt.layer(*layers).properties(height=HEIGHT, description=spoken))


def _own(pairs: pd.DataFrame, place: Place) -> pd.DataFrame:
    """The pairs that stand at a place."""
    same = pairs["value"].isna() if place.value is None else pairs["value"] == place.value
    return pairs[same & (pairs["treatment"] == place.treatment)].dropna(subset=["barrier"])


def _look(place: Place) -> dict[str, str]:
    role = theme.role(place.treatment)
    label = theme.treatment(place.treatment).label
    return {"role": role, "words": theme.words(role), "label": label, "heading": place.heading}


def _dots(pairs: pd.DataFrame, where: Mapping[Place, float], diameter: float) -> pd.DataFrame:
    """The pairs, moved off their place's middle where they would touch."""
    parts = []
    for place, at in where.items():
        own = _own(pairs, place)
        lanes = np.array(swarm(own["barrier"].tolist(), diameter), dtype=float)
        offsets = lanes * min(LANE, ROOM / max(1.0, np.abs(lanes).max(initial=0.0)))
        parts.append(own.assign(x=at + offsets, **_look(place)))
    return pd.concat(parts, ignore_index=True)


def _means(pairs: pd.DataFrame, where: Mapping[Place, float]) -> pd.DataFrame:
    rows = []
    for place, at in where.items():
        values = _own(pairs, place)["barrier"]
        if len(values):
            mean, std = values.mean(), values.std() if len(values) > 1 else 0.0
            ends = {"barrier": mean, "low": mean - std, "high": mean + std}
            rows.append(_look(place) | ends | {"x": at, "left": at - 0.26, "right": at + 0.26})
    return pd.DataFrame(rows, columns=["role", "x", "left", "right", "barrier", "low", "high"])


def _paper(
    paper: Mapping[Place, tuple[float, float]], where: Mapping[Place, float], x: alt.X, y: alt.Y, digits: int
) -> list[alt.Chart]:
    """The paper's means as hollow diamonds with their spreads."""
    rows = [
        _look(place)
        | {"x": where[place] + BESIDE, "barrier": mean, "low": mean - std, "high": mean + std, "std": std}
        for place, (mean, std) in paper.items()
    ]
    if not rows:
        return []
    drawn = alt.Chart(pd.DataFrame(rows)).encode(x=x, color=theme.paint("role"))
    told = [
        alt.Tooltip("barrier:Q", title="paper", format=f".{digits}f"),
        alt.Tooltip("std:Q", title="spread", format=".2f"),
    ]
    return [
        drawn.mark_rule(strokeWidth=1.25, strokeDash=[3, 2], tooltip=None).encode(y="low:Q", y2="high:Q"),
        drawn.mark_point(shape="diamond", size=90, filled=False, strokeWidth=2).encode(y=y, tooltip=told),
    ]


def _names(where: Mapping[Place, float], x: alt.X) -> list[alt.Chart]:
    """Under the plot a line of treatments, and under it one of settings."""
    frame = pd.DataFrame([_look(place) | {"x": at} for place, at in where.items()])
    settings = frame[frame["heading"] != ""].groupby("heading", sort=False)["x"].mean().reset_index()
    look = {"baseline": "middle", "tooltip": None}
    treatments = alt.Chart(frame).mark_text(fontSize=11.5, **look)
    headings = alt.Chart(settings.assign(ink="ink")).mark_text(fontSize=labels.FONT, fontWeight=600, **look)
    return [
        treatments.encode(
            x=x, y=alt.YValue(alt.ExprRef("height + 16")), text="label:N", color=theme.paint("words")
        ),
        headings.encode(
            x=x, y=alt.YValue(alt.ExprRef("height + 38")), text="heading:N", color=theme.paint("ink")
        ),
    ]
