"""`--help` of commands made from a spec: no flag that can have one value only, lists as they are typed."""

from __future__ import annotations

import re

from cyclopts.help import DefaultFormatter, HelpPanel
from rich.console import Console, ConsoleOptions


class Formatter(DefaultFormatter):
    """Cyclopts' own look, with the panels' entries tidied."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Prints one panel."""
        entries = [
            entry.copy(default=as_typed(entry.default))
            for entry in panel.entries
            if len(entry.choices or ()) != 1
        ]
        super().__call__(console, options, panel.copy(entries=entries))


def as_typed(default: str | None) -> str | None:
    """A default as a person would type it: standard w for ('standard', 'w'); none where nothing needs to be typed."""
    if default in {None, "False", '""', "()"}:
        return None
    return re.sub(r"^\(|,?\)$|[',]", "", default)
