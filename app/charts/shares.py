"""The vertical axis of histograms of images: a root scale, on which rare bins can be seen beside full ones."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app.charts import panels

TICKS = (0, 1, 10, 30, 60, 100)
"""Percent."""
ROOM = 1.08
"""The scale goes on past the fullest bin by this factor."""


def upright(shares: pd.Series, *, named: bool) -> alt.Y:
    """The axis, from column `share`, that all panels of a figure share.

    Args:
        shares: Of images in every bin of every panel, percent.
        named: Whether it has words: the first panel of a row.
    """
    top = min(100.0, float(shares.max()) * ROOM)
    ticks = [tick for tick in TICKS if tick <= top]
    axis = alt.Axis(values=ticks, format="d", minExtent=panels.EXTENT, labelOpacity=float(named))
    scale = alt.Scale(type="sqrt", domain=[0, top], nice=False)
    return alt.Y("share:Q", title="images (%)" if named else None, scale=scale, axis=axis)
