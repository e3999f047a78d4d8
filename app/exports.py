"""What the page of a study or a run hands out: every table as CSV and Parquet, a grid as arrays too, and the settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import pyarrow as pa
import streamlit as st

from app import queries
from app.charts import tables
from jobs import queries as reads
from jobs.service import Service

Files = dict[str, tuple[str, Callable[[], bytes]]]
"""File name -> (label, what makes the content when it is asked for)."""


def popover(files: Files) -> None:
    """A button that shows one for each file."""
    with st.popover("Export", icon=":material/download:"), st.container(gap=None):
        for file, (label, content) in files.items():
            st.download_button(label, content, file, key=f"export-{file}", on_click="ignore", type="tertiary")


def of_study(study: Mapping[str, Any], results: Mapping[str, pa.Table], view: ModuleType | None) -> Files:
    """A study's result tables, its grid as arrays, and its settings.

    Args:
        study: What `jobs.queries.study` knows of it.
        results: Its tables.
        view: That of its kind, see `app.views`.
    """
    name = study["study"]
    files = _tables(name, results, results.__getitem__, view)
    if results:
        files |= _arrays(name, view, study, results)
    return files | _settings(name, study["spec"])


def of_run(service: Service, run: Mapping[str, Any], view: ModuleType | None) -> Files:
    """What a run has recorded so far, its grid as arrays, and its settings; arguments as those of `of_study`."""
    name = run["run"]
    recorded = queries.recorded(service, name)
    files = _tables(name, recorded, lambda table: reads.records(service.store, table, [name]), view)
    if recorded:
        files |= _arrays(name, view, run)
    return files | _settings(name, run["spec"])


def _tables(
    stem: str, names: Iterable[str], table: Callable[[str], pa.Table], view: ModuleType | None
) -> Files:
    """Each table as CSV and as Parquet, called as the view calls it."""
    called: Mapping[str, str] = getattr(view, "TABLES", {})
    files: Files = {}
    for name in names:
        file, label = f"{stem}-{name.replace('_', '-')}", called.get(name, name)
        files[f"{file}.csv"] = f"{label} (CSV)", partial(_csv, table, name)
        files[f"{file}.parquet"] = f"{label} (Parquet)", partial(_parquet, table, name)
    return files


def _csv(table: Callable[[str], pa.Table], name: str) -> bytes:
    return tables.csv(table(name).to_pandas()).encode()


def _parquet(table: Callable[[str], pa.Table], name: str) -> bytes:
    return tables.parquet(table(name))


def _arrays(stem: str, view: ModuleType | None, *found: Any) -> Files:  # noqa: ANN401 - a study and its tables, or a run
    """The grid of what was found, if the view knows of one."""
    if view is None or not hasattr(view, "arrays"):
        return {}
    return {f"{stem}-{view.GRID}.npz": (f"{view.GRID_TOLD} (NPZ)", lambda: tables.npz(view.arrays(*found)))}


def _settings(stem: str, spec: Mapping[str, Any]) -> Files:
    return {f"{stem}.json": ("Settings as JSON", lambda: json.dumps(spec, indent=2).encode())}
