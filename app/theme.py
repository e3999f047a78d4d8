"""How the lab looks: one colour per treatment, state badges, Streamlit's options and the style of every chart.

Charts name colours by role ("standard", "words of standard", "ink"); the browser looks the role up in the palette
of the theme that is showing, so a change of theme needs no rerun.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import altair as alt

Chart = TypeVar("Chart", alt.LayerChart, alt.VConcatChart)


@dataclass(frozen=True)
class Treatment:
    """How a treatment is named and coloured everywhere: charts, chips, tables and exports."""

    label: str
    latex: str
    colour: str
    """Of marks; the same in both themes (Okabe-Ito, and past its eight others)."""
    words_light: str
    """Of text on the light theme; at least 4.5:1 on its background and panels."""
    words_dark: str


TREATMENTS = {
    "standard": Treatment("Standard", "Standard", "#7A7F87", "#5A5F67", "#B3B8C0"),
    "rebasin": Treatment("Git Re-Basin", "Git Re-Basin", "#0072B2", "#0068A3", "#5CB1E8"),
    "rebasin_repair": Treatment("Re-Basin + REPAIR", "Re-Basin + REPAIR", "#C0392B", "#A93226", "#EF8A80"),
    "rebasin_unsigned": Treatment(
        "Git Re-Basin, unsigned", "Git Re-Basin, unsigned", "#4F86C6", "#2F62A0", "#8DB6EA"
    ),
    "activations": Treatment("Activation matching", "Activation matching", "#A6611A", "#8C510A", "#DDA56A"),
    "straight_through": Treatment("Straight-through", "Straight-through", "#C2326E", "#A81F59", "#F07BA8"),
    "sinkhorn": Treatment("Sinkhorn re-basin", "Sinkhorn re-basin", "#1FA3A3", "#0B6E6E", "#5FD0D0"),
    "cycle": Treatment("Cycle-consistent", "Cycle-consistent", "#6B8E23", "#4C6A12", "#A9CC5A"),
    "sigma": Treatment("σ-Asymmetric", r"$\sigma$-Asymmetric", "#E69F00", "#8A5E00", "#F0B840"),
    "w": Treatment("W-Asymmetric", "W-Asymmetric", "#009E73", "#00704F", "#2FC79A"),
    "w_figlu": Treatment("W with FiGLU", "W with FiGLU", "#7FB800", "#4B6E00", "#A5DB3A"),
    "w0": Treatment("W, κ = 0", r"W, $\kappa = 0$", "#56B4E9", "#1A6F9F", "#8ACDF5"),
    "syre": Treatment("syre", "syre", "#CC79A7", "#A0447A", "#E09CC3"),
    "asym_init": Treatment("Asymmetric init", "Asymmetric init", "#D55E00", "#AB4B00", "#F08A48"),
    "fixed_biases": Treatment("Fixed biases", "Fixed biases", "#8C7A3D", "#6F6030", "#C4B06A"),
    "other": Treatment("Other", "Other", "#9467BD", "#7A4BA6", "#B694D9"),
}


@dataclass(frozen=True)
class Palette:
    """The neutral colours of one theme."""

    accent: str
    ink: str
    muted: str
    rule: str
    paper: str
    panel: str
    border: str


LIGHT = Palette("#4F46E5", "#1B1F27", "#5C6370", "#9AA1AD", "#FFFFFF", "#F6F7F9", "#E3E6EB")
DARK = Palette("#8B85FF", "#E8EAEE", "#A3ABB9", "#6B7484", "#0F1218", "#171B23", "#2A303B")

NEUTRALS = ("ink", "muted", "rule", "paper", "accent")


DOTS = 0.92
"""Opacity of dots that may lie over each other; at less the darkest colours would vanish in the dark theme."""


def words(treatment: str) -> str:
    """The role of text that speaks of a treatment."""
    return f"words of {treatment}"


ROLES: tuple[str, ...] = (*TREATMENTS, *map(words, TREATMENTS), *NEUTRALS)
"""Everything a chart can colour, in the order of the palettes that `colours` returns."""


def colours(palette: Palette) -> list[str]:
    """The colour of each of `ROLES` in one theme."""
    dark = palette is DARK
    return [
        *(treatment.colour for treatment in TREATMENTS.values()),
        *(treatment.words_dark if dark else treatment.words_light for treatment in TREATMENTS.values()),
        *(getattr(palette, neutral) for neutral in NEUTRALS),
    ]


def role(key: str) -> str:
    """The role that colours a treatment's marks; one without a colour of its own is "other"."""
    return key if key in TREATMENTS else "other"


def treatment(key: str) -> Treatment:
    """The look of a treatment; one without a colour of its own keeps its name."""
    known = TREATMENTS[role(key)]
    return known if key in TREATMENTS else replace(known, label=key, latex=key.replace("_", r"\_"))


@dataclass(frozen=True)
class State:
    """How a state of a run or study is shown; `meaning` is its tooltip."""

    colour: str
    icon: str
    meaning: str


STATES = {
    "queued": State("gray", ":material/schedule:", "Waits for a free slot or for the runs it needs."),
    "running": State("blue", ":material/play_arrow:", "A worker is on it and has been heard of lately."),
    "cancelling": State(
        "orange", ":material/hourglass_top:", "Told to stop; the worker is saving a checkpoint."
    ),
    "cancelled": State("gray", ":material/block:", "Stopped on request; it can be resumed."),
    "failed": State(
        "red", ":material/error:", "Ended with an error; its page shows the last lines of the log."
    ),
    "lost": State("violet", ":material/link_off:", "Its worker has not been heard of; it is looked for."),
    "done": State("green", ":material/check:", "Finished; its results are stored."),
}


def _tokens(section: str, palette: Palette, panel_first: bool) -> dict[str, Any]:
    background, secondary = (palette.panel, palette.paper) if panel_first else (palette.paper, palette.panel)
    return {
        f"theme.{section}.primaryColor": palette.accent,
        f"theme.{section}.backgroundColor": background,
        f"theme.{section}.secondaryBackgroundColor": secondary,
        f"theme.{section}.textColor": palette.ink,
        f"theme.{section}.borderColor": palette.border,
    }


OPTIONS: dict[str, Any] = {
    "theme.baseFontSize": 15,
    "theme.baseRadius": "0.5rem",
    "theme.headingFontSizes": ["1.7rem", "1.25rem", "1.05rem", "1rem", "0.95rem", "0.9rem"],
    "theme.headingFontWeights": [650, 600, 600, 600, 600, 600],
    "theme.paddingTop": "2.5rem",
    "theme.paddingBottom": "4rem",
    "theme.showWidgetBorder": True,
    **_tokens("light", LIGHT, panel_first=False),
    **_tokens("dark", DARK, panel_first=False),
    **_tokens("light.sidebar", LIGHT, panel_first=True),
    **_tokens("dark.sidebar", DARK, panel_first=True),
    "theme.light.linkColor": LIGHT.accent,
    "theme.dark.linkColor": DARK.accent,
    "theme.light.grayTextColor": "#555C68",
    "theme.light.grayBackgroundColor": "#EFF1F4",
    "theme.dark.grayTextColor": "#B4BBC7",
    "theme.dark.grayBackgroundColor": "#232934",
    "theme.light.chartCategoricalColors": colours(LIGHT),
    "theme.dark.chartCategoricalColors": colours(DARK),
    "runner.magicEnabled": False,
    "client.toolbarMode": "viewer",  # the menu keeps the choice of theme and loses "Deploy"
}
"""Options for `streamlit.App.run(config=...)`: the tokens of both themes."""


def variables() -> str:
    """The tokens as CSS variables, each with its value in both themes."""
    pairs = {name: (getattr(LIGHT, name), getattr(DARK, name)) for name in Palette.__dataclass_fields__}
    lines = [f"--lab-{name}: light-dark({light}, {dark});" for name, (light, dark) in pairs.items()]
    return ":root {" + " ".join(lines) + "}"


def scale() -> alt.Scale:
    """The one colour scale of every chart: roles to the palette of the theme that is showing."""
    return alt.Scale(domain=list(ROLES), range="category")


def paint(field: str) -> alt.Color:
    """Colour by a column that holds roles."""
    return alt.Color(f"{field}:N", scale=scale(), legend=None)


def fixed(name: str) -> alt.ColorDatum:
    """Colour by one role, in a chart that also has a layer coloured by `paint`."""
    return alt.ColorDatum(name, type="nominal")


def styled(chart: Chart) -> Chart:
    """The chart without frames, on a light grid, its words readable in both themes."""
    muted = alt.ExprRef("scale('color', 'muted')")
    framed: Chart = chart.configure_view(strokeWidth=0).configure_axis(
        domain=False,
        ticks=False,
        labelFontSize=12,
        labelPadding=6,
        titleFontSize=12.5,
        titleFontWeight="normal",
        titlePadding=10,
        labelColor=muted,
        titleColor=muted,
    )
    return framed
