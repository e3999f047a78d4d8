"""The site's map: every module of `app.pages` is a page, so a new page is one new file.

A page module declares TITLE, ICON, GROUP (a section of the side bar; "" stands above all sections; a page
with None is found by links and its address, but not listed), URL ("" is the front page), ORDER (within its group) and `render()`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Literal

import streamlit as st

import app.pages

GROUPS = ("", "Do", "See", "Data")
"""Sections of the side bar, in this order; others follow."""


@cache
def modules() -> dict[str, ModuleType]:
    """Page modules by URL, in the order of the side bar."""
    found = [
        importlib.import_module(f"{app.pages.__name__}.{entry.name}")
        for entry in pkgutil.iter_modules(app.pages.__path__)
    ]

    def place(module: ModuleType) -> tuple[int, int, str]:
        group = GROUPS.index(module.GROUP) if module.GROUP in GROUPS else len(GROUPS)
        return group, module.ORDER, module.TITLE

    return {module.URL: module for module in sorted(found, key=place)}


def page(url: str) -> st.Page:
    """The page at a URL, for navigation and links."""
    module = modules()[url]
    visibility: Literal["visible", "hidden"] = "hidden" if module.GROUP is None else "visible"
    path = url or "home"
    return st.Page(
        module.render,
        title=module.TITLE,
        icon=module.ICON,
        url_path=path,
        default=not url,
        visibility=visibility,
    )


def sections() -> dict[str, list[st.Page]]:
    """Pages by section of the side bar."""
    found: dict[str, list[st.Page]] = {}
    for url, module in modules().items():
        found.setdefault(module.GROUP or "", []).append(page(url))
    return found
