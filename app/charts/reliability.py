"""Reliability diagrams: of predictions of one confidence how many are right, a panel per treatment on one scale."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from app import theme
from app.charts import panels, shares
from symcore.posteriors.reliability import BINS

PERCENT = 100.0
IMAGES, CAPTION = 76, 112
"""Pixels of the bars below a diagram, and of what stands above and below both."""
SPAN = (0.0, 100.0)
"""Both axes of every diagram, in percent."""
APART = 0.4
"""Percent of confidence that a bar keeps from each end of its bin."""
TICKS = [0, 20, 40, 60, 80, 100]


def height(treatments: int) -> int:
    """Pixels of a figure."""
    rows = -(-treatments // panels.COLUMNS)
    return rows * (panels.width(treatments) + panels.BETWEEN + IMAGES + CAPTION)


def placed(bins: pd.DataFrame) -> pd.DataFrame:
    """What is drawn of each bin, in percent.

    Args:
        bins: Columns treatment, bin (from 0), images, confidence, accuracy, accuracy_std (0 to 1).

    Returns:
        Columns treatment, role, images, share (of the treatment's images), floor (0), lower and upper (within the ends of
        the bin), confidence, accuracy, spread, low and high (accuracy less and plus that; NaN where there is none).
    """
    total = bins.groupby("treatment", sort=False)["images"].transform("sum")
    confidence, accuracy, spread = (
        bins[name].astype(float) * PERCENT for name in ("confidence", "accuracy", "accuracy_std")
    )
    return pd.DataFrame(
        {
            "treatment": bins["treatment"],
            "role": bins["treatment"].map(theme.role),
            "images": bins["images"],
            "share": bins["images"] / total * PERCENT,
            "floor": 0.0,
            "lower": bins["bin"] / BINS * PERCENT + APART,
            "upper": (bins["bin"] + 1) / BINS * PERCENT - APART,
            "confidence": confidence,
            "accuracy": accuracy,
            "spread": spread,
            "low": (accuracy - spread).clip(lower=SPAN[0]),
            "high": (accuracy + spread).clip(upper=SPAN[1]),
        }
    )


def figure(bins: pd.DataFrame, told: Mapping[str, str]) -> alt.VConcatChart:
    """A dot per bin with its spread, the diagonal, and below it how many images the bins hold.

    Args:
        bins: What `placed` takes.
        told: What is said above each treatment's panel below its name, in the order of the panels.
    """
    points = placed(bins)
    drawn = []
    for place, (key, said) in enumerate(told.items()):
        own, first = points[points["treatment"] == key], place % panels.COLUMNS == 0
        heading = panels.above(theme.treatment(key).label, said)
        side = panels.width(len(told))
        diagram = _diagram(own, named=first).properties(width=side, height=side, title=heading)
        bars = _bars(own, shares.upright(points["share"], named=first)).properties(width=side, height=IMAGES)
        drawn.append((diagram, bars))
    names = ", ".join(theme.treatment(key).label for key in told)
    return panels.rows(drawn, f"accuracy (%) of predictions by their confidence (%), for {names}")


def _across(field: str, *, named: bool) -> alt.X:
    """Confidence; named under the bars, which stand below the diagram."""
    axis = alt.Axis(values=TICKS, labelFlush=8, labels=named)
    scale = alt.Scale(domain=list(SPAN), nice=False)
    return alt.X(field, title="confidence (%)" if named else None, scale=scale, axis=axis)


def _diagram(points: pd.DataFrame, *, named: bool) -> alt.LayerChart:
    """Accuracy by confidence; `named` says whether the vertical axis has words; its labels take their room anyway, so that headings line up."""
    axis = alt.Axis(values=TICKS, minExtent=panels.EXTENT, labelOpacity=float(named))
    scale = alt.Scale(domain=list(SPAN), nice=False)
    y = alt.Y("accuracy:Q", title="accuracy (%)" if named else None, scale=scale, axis=axis)
    x = _across("confidence:Q", named=False)
    known = alt.Chart(points[points["images"] > 0]).encode(x=x, color=theme.paint("role"))
    tips = [
        alt.Tooltip("confidence:Q", title="mean confidence (%)", format=".1f"),
        alt.Tooltip("accuracy:Q", title="accuracy (%)", format=".1f"),
        alt.Tooltip("spread:Q", title="standard deviation", format=".1f"),
        alt.Tooltip("images:Q", format=","),
    ]
    diagonal = alt.Chart(pd.DataFrame({"confidence": SPAN, "accuracy": SPAN}))
    return alt.layer(
        diagonal.mark_line(strokeDash=[4, 3], strokeWidth=1.25, tooltip=None).encode(
            x=x, y=y, color=theme.fixed("muted")
        ),
        known.mark_rule(strokeWidth=1.5, tooltip=None).encode(y="low:Q", y2="high:Q"),
        known.mark_line(strokeWidth=1.5, opacity=0.5, tooltip=None).encode(y=y),
        known.mark_circle(size=64, opacity=1).encode(y=y, tooltip=tips),
    )


def _bars(points: pd.DataFrame, y: alt.Y) -> alt.LayerChart:
    """How many of the images each bin holds."""
    tips = [alt.Tooltip("share:Q", title="images (%)", format=".2f"), alt.Tooltip("images:Q", format=",")]
    bars = alt.Chart(points).encode(x=_across("lower:Q", named=True), x2="upper:Q", y=y, y2="floor:Q")
    return alt.layer(bars.mark_rect(opacity=0.75).encode(color=theme.paint("role"), tooltip=tips))
