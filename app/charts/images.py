"""A chart as a file for a paper: SVG or PNG, in the colours of the light theme, on white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd
import vl_convert
from altair.utils import sanitize_pandas_dataframe

from app import theme
from app.charts import labels

Format = Literal["svg", "png"]
MEDIA: dict[Format, str] = {"svg": "image/svg+xml", "png": "image/png"}
"""Formats, and the media types of their files."""
WIDTH = 640
"""Pixels of a plot that takes the width of the page."""
SCALE = 3
"""Pixels of a PNG for each of the chart."""
LONGEST = 900
"""Pixels of a line of a legend at most."""
NAME, LETTER = 34, 7.2
"""Pixels of a name in it: its dot and the room behind it, and each letter."""


def image(drawing: alt.LayerChart | alt.VConcatChart, form: Format, legend: Sequence[str] = ()) -> bytes:
    """The chart as a file.

    Args:
        drawing: The chart.
        form: Of the file.
        legend: Treatments that are named above it, where the page names them beside the chart.
    """
    spec = specification(drawing)
    if legend:
        spec = _below(_legend(legend), spec)
    if form == "svg":
        text: str = vl_convert.vegalite_to_svg(spec)
        return text.encode()
    content: bytes = vl_convert.vegalite_to_png(spec, scale=SCALE)
    return content


def specification(drawing: alt.LayerChart | alt.VConcatChart) -> dict[str, Any]:
    """The chart in Vega-Lite with its data inside, and the theme that the browser would add."""
    whole: dict[str, Any] = _inline(drawing.copy(deep=True)).to_dict()
    if isinstance(drawing, alt.LayerChart) and drawing.width is alt.Undefined:
        whole["width"] = WIDTH
    light = theme.LIGHT
    look: dict[str, Any] = {
        "background": light.paper,
        "font": "sans-serif",
        "range": {"category": theme.colours(light)},
    }
    axis = {"gridColor": light.border, "grid": True}
    own = whole.get("config", {})
    whole["config"] = own | look | {"axis": axis | own.get("axis", {})}
    return whole


WHOLE = ("$schema", "config", "datasets", "autosize")
"""What stands once in a specification of several charts."""


def _below(legend: alt.LayerChart, spec: dict[str, Any]) -> dict[str, Any]:
    """The specification with a legend above its chart."""
    first = _inline(legend).to_dict()
    shared = {name: value for name, value in spec.items() if name in WHOLE}
    shared["datasets"] = first.get("datasets", {}) | spec.get("datasets", {})
    parts = [{name: value for name, value in part.items() if name not in WHOLE} for part in (first, spec)]
    return shared | {"vconcat": parts, "spacing": 12, "resolve": {"scale": {"color": "shared"}}}


def _legend(treatments: Sequence[str]) -> alt.LayerChart:
    """A dot and a name per treatment, in as many lines as they need."""
    rows, at, line, wide = [], 0.0, 0, 0.0
    for key in treatments:
        look = theme.treatment(key)
        room = NAME + LETTER * len(look.label)
        if at and at + room > LONGEST:
            at, line = 0.0, line + 1
        role = theme.role(key)
        rows.append({"x": at, "y": line, "label": look.label, "role": role, "words": theme.words(role)})
        at += room
        wide = max(wide, at)
    lines = line + 1
    drawn = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, wide], nice=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[lines - 0.5, -0.5], nice=False, zero=False)),
    )
    words = drawn.mark_text(align="left", dx=12, fontSize=labels.FONT).encode(
        text="label:N", color=theme.paint("words")
    )
    dots = drawn.mark_circle(size=70, opacity=1).encode(color=theme.paint("role"))
    return alt.layer(dots, words, width=wide, height=20 * lines)


def _inline(part: Any) -> Any:  # noqa: ANN401 - any of Altair's charts
    """The chart with its frames as records: Altair's way to turn them into such is one setting for all threads."""
    if isinstance(part.data, pd.DataFrame):
        part.data = alt.InlineData(values=sanitize_pandas_dataframe(part.data).to_dict("records"))
    for name in ("layer", "hconcat", "vconcat"):
        for inner in getattr(part, name, ()):
            _inline(inner)
    return part
