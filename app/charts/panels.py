"""Figures of several panels: what stands above each, and how they lie in rows."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from app import theme

WIDTH, GAP, AXIS = 955, 34, 58
"""Pixels that a row of panels may take, so that it fits beside the side bar on a window of 1280, between two, and left of the first."""
COLUMNS, LARGEST = 3, 340
"""Panels in a row, and pixels of a panel's width at most."""

BETWEEN = 8
"""Pixels between the charts of a panel."""
EXTENT = 38
"""Pixels that the labels of a vertical axis take at least, so that axes above each other line up."""


def width(panels: int) -> int:
    """Pixels of each of so many panels."""
    across = min(panels, COLUMNS)
    return min(LARGEST, (WIDTH - AXIS - GAP * (across - 1)) // across)


def above(text: str, told: str = "") -> alt.TitleParams:
    """What is said above a panel; `told`, if given, in a second line."""
    return alt.TitleParams(
        text,
        subtitle=told or alt.Undefined,
        anchor="start",
        frame="group",
        fontSize=12.5,
        fontWeight=600,
        color=alt.ExprRef("scale('color', 'ink')"),
        subtitleFontSize=12,
        subtitleColor=alt.ExprRef("scale('color', 'muted')"),
        offset=8,
    )


def rows(drawn: Sequence[Sequence[alt.LayerChart]], spoken: str) -> alt.VConcatChart:
    """Panels in rows, as one figure.

    Args:
        drawn: Each panel's charts from top to bottom, as many in each.
        spoken: The figure in words, for those who hear it.
    """
    lines: list[alt.HConcatChart | alt.VConcatChart] = []
    for first in range(0, len(drawn), COLUMNS):
        columns = drawn[first : first + COLUMNS]
        levels = [alt.hconcat(*level, spacing=GAP, bounds="flush") for level in zip(*columns, strict=True)]
        lines.append(levels[0] if len(levels) == 1 else alt.vconcat(*levels, spacing=BETWEEN))
    whole = alt.vconcat(
        *lines,
        spacing=26,
        autosize=alt.AutoSizeParams(type="pad", contains="padding"),
        description=spoken,
        resolve=alt.Resolve(scale=alt.ScaleResolveMap(color="shared")),
    )
    return theme.styled(whole)
