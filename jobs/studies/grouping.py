"""Records sorted to where they belong: by treatment, and by path or slice. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.studies.lmc_results import LABELS
from symcore.metrics import Array


def by_treatment(records: pa.Table, part: str, roles: Mapping[str, str]) -> pa.Table:
    """Records of the runs that play a part, with treatment and label in place of `run`, treatments in order.

    Args:
        records: with a `run` column; runs that play no role are ignored.
        part: say "layers".
        roles: the run that plays each role, say {"w/layers/0": "r…"}.
    """
    parts = []
    for treatment, label in LABELS.items():
        run = pa.scalar(roles.get(f"{treatment}/{part}/0"), pa.string())
        rows = records.filter(pc.equal(records["run"], run)).drop_columns(["run"])
        for name, value in (("label", label), ("treatment", treatment)):
            rows = rows.add_column(0, name, pa.array([value] * rows.num_rows, pa.string()))
        parts.append(rows)
    return pa.concat_tables(parts)


def ordered(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Rows by treatment, in the order in which people see them, and then by other columns."""
    place = pc.index_in(table["treatment"], value_set=pa.array(list(LABELS)))
    order = [(name, "ascending") for name in ("place", *names)]
    return table.append_column("place", place).sort_by(order).drop_columns(["place"])


def lines(
    table: pa.Table, names: Sequence[str], values: Sequence[str]
) -> list[tuple[dict[str, Any], dict[str, Array]]]:
    """The rows that agree in the columns `names`, in order: what they agree in, and the columns `values`, [row] each."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(zip(*(table[name].to_pylist() for name in names), strict=True)):
        found.setdefault(key, []).append(place)
    columns = {name: table[name].to_numpy() for name in values}
    return [
        (
            dict(zip(names, key, strict=True)),
            {name: column[np.array(rows)] for name, column in columns.items()},
        )
        for key, rows in found.items()
    ]


def mean_and_spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation by the names of their columns, as far as there are values enough."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)) if len(values) else None, f"{name}_std": std}
