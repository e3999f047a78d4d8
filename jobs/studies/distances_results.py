"""From distances of single parameters to those of layers and networks. Pure functions.

Three measures of one distance: `distance` is the L2 norm of the difference of all entries that count; `per_parameter`
is that over their number, the paper's (Lim et al. 2024, appendix A); `relative` is it over the root mean square of the
two networks' norms, so that networks with nothing in common are about sqrt 2 apart whatever their scale.
Spreads are sample standard deviations over pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.headline import Headline, Rows, endpoints, spread
from jobs.kinds.distance import ENTRIES
from jobs.studies.lmc_results import LABELS
from symcore.distances import relative

MEASURES = ("distance", "per_parameter", "relative")
NAMES = [("treatment", pa.string()), ("label", pa.string()), ("entries", pa.string())]
MEASURED = [("count", pa.int64()), *((name, pa.float64()) for name in MEASURES)]
BY_PAIR = pa.schema([*NAMES, ("pair", pa.int64()), *MEASURED, ("barrier_midpoint", pa.float64())])
BY_LAYER = pa.schema([*NAMES, ("pair", pa.int64()), ("layer", pa.string()), *MEASURED])
BY_TREATMENT = pa.schema(
    [
        *NAMES,
        ("count", pa.int64()),
        *((name + part, pa.float64()) for name in MEASURES for part in ("", "_std")),
        ("pairs", pa.int64()),
        ("paper_per_parameter", pa.float64()),
    ]
)


def measured(records: pa.Table, roles: Mapping[str, str], block: int) -> list[dict[str, Any]]:
    """The records with treatment, label and the study's number of the pair, sorted by these.

    Args:
        records: the weight_distance table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/distance/0": "r…"}.
        block: the study's pairs per block, which turns a run's pairs into the study's.
    """
    parts = [(run, *role.split("/")) for role, run in roles.items() if "/distance/" in role]
    known = {run: (treatment, int(number) * block) for run, treatment, _, number in parts}
    rows = [
        row | {"treatment": treatment, "label": LABELS[treatment], "pair": first + row["pair"]}
        for row in records.to_pylist()
        for treatment, first in [known.get(row["run"], ("", 0))]
        if treatment
    ]
    order = list(LABELS)
    return sorted(
        rows, key=lambda row: (order.index(row["treatment"]), ENTRIES.index(row["entries"]), row["pair"])
    )


def by_layer(rows: Rows) -> pa.Table:
    """One row per treatment, kind of entries, pair and layer: a module with its weight and bias.

    Args:
        rows: what `measured` makes.
    """
    named = [dict(row, layer=row["parameter"].rpartition(".")[0] or row["parameter"]) for row in rows]
    found = _grouped(named, BY_LAYER)
    return pa.Table.from_pylist(found, schema=BY_LAYER)


def by_pair(rows: Rows, barriers: pa.Table) -> pa.Table:
    """One row per treatment, kind of entries and pair: whole networks, and the barrier between them.

    Args:
        rows: what `measured` makes.
        barriers: what `lmc_results.by_pair` makes.
    """
    known = {
        (row["treatment"], row["pair"]): row["barrier_midpoint"]
        for row in barriers.to_pylist()
        if (row["split"], row["quantity"]) == ("test", "loss")
    }
    found = [
        dict(row, barrier_midpoint=known.get((row["treatment"], row["pair"])))
        for row in _grouped(rows, BY_PAIR)
    ]
    return pa.Table.from_pylist(found, schema=BY_PAIR)


def _grouped(rows: Rows, schema: pa.Schema) -> list[dict[str, Any]]:
    """Parameters put together that the schema's names do not tell apart."""
    names = [name for name in ("treatment", "label", "entries", "pair", "layer") if name in schema.names]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return [dict(zip(names, key, strict=True)) | _together(own) for key, own in groups.items()]


def _together(parameters: Rows) -> dict[str, Any]:
    """The measures over several parameters, whose squares add up; none where no entry counts."""
    count = sum(row["count"] for row in parameters)
    apart, norm_a, norm_b = (
        np.linalg.norm([[row[name]] for row in parameters], axis=0)
        for name in ("distance", "norm_a", "norm_b")
    )
    if not count:
        return {"count": 0} | dict.fromkeys(MEASURES)
    return {
        "count": count,
        "distance": float(apart[0]),
        "per_parameter": float(apart[0]) / count,
        "relative": float(relative(apart, norm_a, norm_b)[0]),
    }


def by_treatment(pairs: pa.Table, paper: Mapping[str, float]) -> pa.Table:
    """One row per treatment and kind of entries: means and spreads over pairs.

    Args:
        pairs: what `by_pair` makes.
        paper: the paper's distances per trained parameter, by treatment, where they compare.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in pairs.to_pylist():
        groups.setdefault((row["treatment"], row["entries"]), []).append(row)
    kept = ("treatment", "label", "entries", "count")  # masks differ, if at all, in place and not in number
    found = [
        {name: own[0][name] for name in kept}
        | {"pairs": len(own)}
        | _spreads(own)
        | {"paper_per_parameter": paper.get(treatment) if entries == "trainable" else None}
        for (treatment, entries), own in groups.items()
    ]
    return pa.Table.from_pylist(found, schema=BY_TREATMENT)


def _spreads(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in MEASURES:
        values = np.array([row[name] for row in pairs], dtype=float)
        found |= {
            name: float(values.mean()),
            f"{name}_std": float(values.std(ddof=1)) if len(values) > 1 else None,
        }
    return found


def headline(distances: Rows, summary: Rows) -> Headline:
    """One row per treatment, over the trained entries; barriers and endpoints on the test images."""
    test = {(row["treatment"], row["quantity"]): row for row in summary if row["split"] == "test"}

    def told(row: Mapping[str, Any]) -> tuple[str, ...]:
        loss, accuracy = (test.get((row["treatment"], name), {}) for name in ("loss", "accuracy"))
        return (
            row["label"],
            spread(row["distance"], row["distance_std"], 2),
            spread(row["relative"], row["relative_std"], 2),
            spread(loss.get("barrier_midpoint"), loss.get("barrier_midpoint_std")),
            *endpoints(loss, accuracy),
            str(row["pairs"]),
        )

    return Headline(
        columns=(
            "treatment",
            "distance",
            "relative",
            "barrier\nmidpoint",
            "test\nloss",
            "test\nacc.",
            "pairs",
        ),
        rows=tuple(told(row) for row in distances if row["entries"] == "trainable"),
        caption=(
            "Distance: L2 over the trained entries; relative: over the root mean square of\n"
            "the two norms. Barriers, losses and accuracies on the test set. Means ± sample\n"
            "standard deviations over disjoint pairs."
        ),
    )
