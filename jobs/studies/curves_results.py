"""From points to the numbers of the study of low paths: barriers on straight lines and curves, rises layer by layer.

Pure functions. Barriers are those of `lmc_results`: positive where the path is worse than its ends. What moving some
layers does is told against the first network of the pair, since the hybrid at the other end is no trained network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.headline import Headline, Rows, endpoints, spread
from jobs.studies import lmc_results
from jobs.studies.grouping import by_treatment, lines, ordered
from jobs.studies.lmc_results import LABELS, QUANTITIES
from symcore.metrics import Array

FORMS = {"straight": "path", "curve": "curve"}
"""Forms of whole paths in the order in which people see them, and the part that their runs play."""
LAYERS = pa.schema(
    [
        ("treatment", pa.string()),
        ("label", pa.string()),
        ("order", pa.string()),  # which layers move, see symcore.landscape.layerwise
        ("layer", pa.int64()),
        ("name", pa.string()),
        ("split", pa.string()),
        ("quantity", pa.string()),
        ("pair", pa.int64()),
        ("start", pa.float64()),  # network a
        ("midway", pa.float64()),  # with these layers halfway between a and b
        ("end", pa.float64()),  # with these layers of b
        ("rise_midway", pa.float64()),  # above network a, positive where it is worse
        ("rise_end", pa.float64()),
    ]
)
POINTS = pa.schema(
    [
        *(
            (name, LAYERS.field(name).type)
            for name in ("treatment", "label", "order", "layer", "name", "split")
        ),
        ("pair", pa.int64()),
        ("alpha", pa.float64()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
    ]
)


def whole(points: pa.Table, roles: Mapping[str, str], pairs: int) -> dict[str, pa.Table]:
    """The tables "summary", "pairs" and "paths" of `lmc_results`, with a column that says which form of path it is.

    Args:
        points: the path_point table with a `run` column.
        roles: the run that plays each role, say {"w/curve/0": "r…"}.
        pairs: of the study.
    """
    makers = {
        "summary": lambda paths: lmc_results.summary(paths, {}),
        "pairs": lmc_results.by_pair,
        "paths": lmc_results.as_table,
    }
    parts: dict[str, list[pa.Table]] = {name: [] for name in makers}
    for form, part in FORMS.items():
        own = {role.replace(f"/{part}/", "/path/"): run for role, run in roles.items() if f"/{part}/" in role}
        paths = lmc_results.paths(points, own, pairs)
        for name, make in makers.items():
            table = make(paths)
            forms = pa.array([form] * table.num_rows, pa.string())
            parts[name].append(table.add_column(2, "form", forms))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def layer_points(points: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    """All points of layer-wise paths, treatments in order.

    Args:
        points: the layer_point table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/layers/0": "r…"}.
    """
    named = by_treatment(points, "layers", roles).select(POINTS.names).cast(POINTS)
    return ordered(named, ("order", "layer", "split", "pair", "alpha"))


def layers(points: pa.Table) -> pa.Table:
    """One row per treatment, order, layer, split, quantity and pair: the ends, the middle, and how far they rise.

    Args:
        points: what `layer_points` makes.
    """
    names = ["treatment", "label", "order", "layer", "name", "split", "pair"]
    rows = []
    for at, path in lines(points, names, ["loss", "accuracy"]):
        for quantity, values in path.items():
            rows.append(at | {"quantity": quantity} | _path(values, QUANTITIES[quantity]))
    return pa.Table.from_pylist(rows, schema=LAYERS)


def _path(values: Array, sign: float) -> dict[str, Any]:
    """What one path says, from its values at evenly spaced alphas."""
    start, midway, end = (float(values[place]) for place in (0, len(values) // 2, -1))
    rises = {"rise_midway": sign * (midway - start), "rise_end": sign * (end - start)}
    return {"start": start, "midway": midway, "end": end} | rises


def headline(summary: Rows, layered: Rows) -> Headline:
    """One row per treatment: the highest rise of the test loss on each form of path, with the worst layer averaged, and endpoints."""

    def wanted(row: Mapping[str, Any], quantity: str = "loss") -> bool:
        return bool((row["split"], row["quantity"]) == ("test", quantity))

    found = {(row["treatment"], row["form"]): row for row in summary if wanted(row)}
    accuracies = {row["treatment"]: row for row in summary if wanted(row, "accuracy")}
    single = worst([row for row in layered if wanted(row) and row["order"] == "single"])
    rows = []
    for treatment, label in LABELS.items():
        own = [found.get((treatment, form)) for form in FORMS]
        if not any(own):
            continue
        rises = (spread(r["barrier_maximum"], r["barrier_maximum_std"]) if r else "–" for r in own)
        first = next(row for row in own if row)
        at = single.get(treatment)
        ends = endpoints(first, accuracies[treatment])
        rows.append((label, *rises, spread(*at) if at else "–", *ends, str(first["pairs"])))
    return Headline(
        columns=(
            "treatment",
            "straight\nline",
            "Bezier\ncurve",
            "worst\nlayer",
            "endpoint\nloss",
            "endpoint\naccuracy",
            "pairs",
        ),
        rows=tuple(rows),
        caption=(
            "Test set, nats. Straight line, Bezier curve: highest rise of the loss above the\n"
            "line between the two networks' losses. Worst layer: rise above the first\n"
            "network's loss where one layer alone is the average of both networks'.\n"
            "Means ± sample standard deviations over disjoint pairs, and of endpoints over\n"
            "the networks of the pairs."
        ),
    )


def worst(layered: Rows) -> dict[str, tuple[float, float | None]]:
    """Mean and spread of the rise at the layer whose average raises the loss most, by treatment."""
    rises: dict[tuple[str, int], list[float]] = {}
    for row in layered:
        rises.setdefault((row["treatment"], row["layer"]), []).append(row["rise_midway"])
    found: dict[str, tuple[float, float | None]] = {}
    for (treatment, _), values in rises.items():
        mean = float(np.mean(values))
        if treatment not in found or mean > found[treatment][0]:
            found[treatment] = mean, float(np.std(values, ddof=1)) if len(values) > 1 else None
    return found
