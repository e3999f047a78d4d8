"""The frame of the site around every page: title, logo, style and navigation."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import navigation, theme

ASSETS = Path(__file__).parent / "assets"
SIDEBAR = 232
"""Pixels."""


def frame() -> None:
    """Title, logo, style and navigation, then the page."""
    st.set_page_config("Symmetry Lab", str(ASSETS / "icon.svg"), "wide", initial_sidebar_state=SIDEBAR)
    st.logo(str(ASSETS / "logo.svg"), size="large", icon_image=str(ASSETS / "icon.svg"))
    st.html(f"<style>{theme.variables()}\n{(ASSETS / 'lab.css').read_text()}</style>")
    st.navigation(navigation.sections(), expanded=True).run()
