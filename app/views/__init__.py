"""How results look, one module per kind of study or run, found by its name; a new kind's view is one new file.

A study's view has `draw(study, results)`, a run's has `draw(run)`: what `jobs.queries` knows of it, and the study's
result tables. `TABLES` says what these tables, or those that the run records, are called. A view of a grid has
`arrays`, which takes what `draw` takes, and `GRID` and `GRID_TOLD`, the name of its file and the label of its button.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def view(kind: str) -> ModuleType | None:
    """The view of a kind, none where it has none of its own."""
    known = {entry.name for entry in pkgutil.iter_modules(__path__)}
    return importlib.import_module(f"{__name__}.{kind}") if kind in known else None
