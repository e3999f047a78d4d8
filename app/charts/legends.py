"""The legend of a chart's continuous colours, in words that both themes show."""

from __future__ import annotations

from typing import Any

import altair as alt


def gradient(title: list[str], length: int, **own: Any) -> alt.Legend:  # noqa: ANN401 - options of Vega-Lite
    """A bar of colours beside a chart that has a layer coloured by `theme.paint`.

    Args:
        title: Its lines, the last with the unit.
        length: Pixels.
        own: Further options of the legend, its ticks say.
    """
    muted = alt.ExprRef("scale('color', 'muted')")
    return alt.Legend(
        title=title,
        gradientLength=length,
        gradientThickness=14,
        labelColor=muted,
        titleColor=muted,
        titleFontWeight="normal",
        titleFontSize=12,
        labelFontSize=11.5,
        offset=18,
        **own,
    )
