"""Opens a page in the browser of the person at this machine, if there is one."""

from __future__ import annotations

import os
import sys
import webbrowser


def available() -> bool:
    """Whether there is a browser with a window; one that draws in the terminal does not count."""
    on_screen = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not on_screen:
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def open_page(link: str) -> None:
    """Opens the link; without a browser nothing happens, for the link is printed too."""
    if available():
        webbrowser.open(link)
