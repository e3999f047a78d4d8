"""Colours are the same everywhere and can be read in both themes."""

from __future__ import annotations

import pytest
from streamlit import config

from app import theme
from jobs.states import State
from jobs.studies import lmc_results


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_every_text_has_a_contrast_of_four_and_a_half(palette: theme.Palette) -> None:
    colours = dict(zip(theme.ROLES, theme.colours(palette), strict=True))
    texts = [
        role for role in theme.ROLES if role.startswith("words of") or role in ("ink", "muted", "accent")
    ]
    for role in texts:
        for background in (palette.paper, palette.panel):
            assert contrast(colours[role], background) >= 4.5, (role, background)


def test_a_treatments_marks_have_one_colour_in_both_themes() -> None:
    marks = len(theme.TREATMENTS)
    assert theme.colours(theme.LIGHT)[:marks] == theme.colours(theme.DARK)[:marks]
    assert len(set(theme.colours(theme.LIGHT)[:marks])) == marks


def test_marks_stand_out_from_the_dark_background() -> None:
    for treatment in theme.TREATMENTS.values():
        assert contrast(treatment.colour, theme.DARK.paper) >= 3


def test_streamlit_knows_every_option() -> None:
    assert set(theme.OPTIONS) <= set(config.get_config_options())


def test_the_browser_looks_colours_up_in_the_order_of_the_roles() -> None:
    for name, palette in (("light", theme.LIGHT), ("dark", theme.DARK)):
        assert theme.OPTIONS[f"theme.{name}.chartCategoricalColors"] == theme.colours(palette)
    assert theme.scale().to_dict() == {"domain": list(theme.ROLES), "range": "category"}


def test_treatments_of_studies_have_their_own_colour_and_name() -> None:
    for key, label in lmc_results.LABELS.items():
        assert theme.role(key) == key
        assert theme.treatment(key).label == label


def test_a_treatment_without_a_colour_keeps_its_name() -> None:
    assert theme.role("brand_new") == "other"
    assert theme.treatment("brand_new").label == "brand_new"
    assert theme.treatment("brand_new").latex == r"brand\_new"


def test_every_state_has_a_look() -> None:
    assert set(theme.STATES) == set(State)


@pytest.mark.parametrize("key", theme.TREATMENTS)
def test_every_dot_has_a_contrast_of_three_in_the_dark_theme(key: str) -> None:
    mark, paper = theme.TREATMENTS[key].colour, theme.DARK.paper
    mixed = (
        round(theme.DOTS * int(mark[i : i + 2], 16) + (1 - theme.DOTS) * int(paper[i : i + 2], 16))
        for i in (1, 3, 5)
    )
    assert contrast("#" + "".join(f"{channel:02x}" for channel in mixed), paper) >= 3
