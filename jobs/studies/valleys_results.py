"""From slices and spectra to the numbers of the valleys study. Pure functions.

Values stay as they were measured, losses in nats; spreads are sample standard deviations. An asymmetry is the rise of
the loss on the forward side of a slice's lowest point over that on the backward side (`symcore.landscape.valleys`): 1
where both are alike, above 1 where the loss rises faster ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.headline import Headline, Rows, spread
from jobs.studies.grouping import by_treatment, lines, ordered
from jobs.studies.lmc_results import LABELS
from symcore.landscape.valleys import ZETAS, probe
from symcore.metrics import Array

NAMES = [("treatment", pa.string()), ("label", pa.string())]
SLICE = [
    ("member", pa.int64()),
    ("direction", pa.string()),  # see jobs.kinds.valley
    ("draw", pa.int64()),
    ("split", pa.string()),
]
SLICES = pa.schema(
    [*NAMES, *SLICE, ("position", pa.float64()), ("loss", pa.float64()), ("accuracy", pa.float64())]
)
RATIOS = {zeta: f"ratio_{100 * zeta:.0f}" for zeta in ZETAS}
"""Columns of c, the smallest slope on the sharp side over the largest on the flat one, by percent of the reach."""
VALLEYS = pa.schema(
    [
        *NAMES,
        *SLICE,
        ("middle", pa.float64()),  # loss at position 0
        ("lowest", pa.float64()),  # least loss of the slice; none where no loss is a number
        ("position", pa.float64()),  # where that is
        ("asymmetry", pa.float64()),  # none where the lowest point is too near an end, or the slice is flat
        *((name, pa.float64()) for name in RATIOS.values()),
        ("end", pa.float64()),  # loss at position 1, where that is another network
    ]
)
CURVATURE = pa.schema(
    [
        *NAMES,
        ("place", pa.string()),
        ("number", pa.int64()),
        ("quantity", pa.string()),  # "eigenvalue" or "trace"
        ("rank", pa.int64()),  # of an eigenvalue, from the largest, 1
        ("value", pa.float64()),
        ("error", pa.float64()),  # an eigenvalue's residual, a trace's standard error
    ]
)


def slices(points: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    """All points of all slices, treatments in order.

    Args:
        points: the valley_point table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/valley/0": "r…"}.
    """
    named = by_treatment(points, "valley", roles).select(SLICES.names).cast(SLICES)
    return ordered(named, [*(name for name, _ in SLICE), "position"])


def valleys(points: pa.Table) -> pa.Table:
    """One row per slice and split: its lowest point, and how much faster the loss rises on one side.

    Args:
        points: what `slices` makes.
    """
    names = [name for name, _ in (*NAMES, *SLICE)]
    rows = [
        at | _valley(line["position"], line["loss"], at["direction"])
        for at, line in lines(points, names, ("position", "loss"))
    ]
    return pa.Table.from_pylist(rows, schema=VALLEYS)


def _valley(positions: Array, losses: Array, direction: str) -> dict[str, Any]:
    """What one slice says."""
    row: dict[str, Any] = {"middle": float(losses[len(losses) // 2])}
    if not np.isnan(losses).all():
        lowest = int(np.nanargmin(losses))
        row |= {"lowest": float(losses[lowest]), "position": float(positions[lowest])}
    if direction in JOINING and positions[-1] >= 1:
        row["end"] = float(np.interp(1.0, positions, losses))
    try:
        found = probe(positions, losses)
    except ValueError:  # the lowest point is too near an end, or a loss that is not finite, to tell
        return row
    if 0 < found.rise < np.inf:
        row["asymmetry"] = found.rise if found.sharp_side == 1 else 1 / found.rise
    return row | {name: found.ratio[zeta] for zeta, name in RATIOS.items() if np.isfinite(found.ratio[zeta])}


JOINING = ("between", "average")
"""Directions that lead to a network at position 1."""


def curvature(eigenvalues: pa.Table, traces: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    """One row per network or midpoint and number that was found there, treatments in order.

    Args:
        eigenvalues: the curvature_eigenvalue table with a `run` column.
        traces: the curvature_trace table likewise.
        roles: the run that plays each role, say {"w/curvature/0": "r…"}.
    """
    found = []
    for row in by_treatment(eigenvalues, "curvature", roles).to_pylist():
        error = row.pop("residual")
        found.append(row | {"quantity": "eigenvalue", "rank": row["rank"] + 1, "error": error})
    found += [
        row | {"quantity": "trace", "value": row["trace"]}
        for row in by_treatment(traces, "curvature", roles).to_pylist()
    ]
    found.sort(
        key=lambda row: (list(LABELS).index(row["treatment"]), row["place"] != "network", row["number"])
    )
    return pa.Table.from_pylist(found, schema=CURVATURE)


PLACES = ("network", "midpoint")
SUMMARY = pa.schema(
    [
        *NAMES,
        *(
            (f"{place}_{quantity}{part}", pa.float64())
            for place in PLACES
            for quantity in ("eigenvalue", "trace")
            for part in ("", "_std")
        ),
        ("networks", pa.int64()),
        ("midpoints", pa.int64()),
        ("sign_asymmetry", pa.float64()),  # median over slices along |n| * sign(w), training images
        ("sign_slices", pa.int64()),
        ("average_asymmetry", pa.float64()),  # median over slices from the weight average to the end
        *(
            (f"{split}_average_gain{part}", pa.float64())
            for split in ("train", "test")
            for part in ("", "_std")
        ),
        ("averages", pa.int64()),
    ]
)


def summary(found: pa.Table, curved: pa.Table) -> pa.Table:
    """One row per treatment: curvature at networks and midpoints, asymmetries, and what averaging weights gains.

    The gain is the loss at the end of training less that of the weight average.

    Args:
        found: what `valleys` makes.
        curved: what `curvature` makes.
    """
    slices_of, points_of = _by_treatment(found), _by_treatment(curved)
    rows = [
        {"treatment": treatment, "label": label}
        | _curvature_of(points_of.get(treatment, []))
        | _valleys_of(slices_of.get(treatment, []))
        for treatment, label in LABELS.items()
        if treatment in slices_of or treatment in points_of
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _by_treatment(table: pa.Table) -> dict[str, Rows]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["treatment"], []).append(row)
    return {**found}


def _curvature_of(points: Rows) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for place in PLACES:
        here = [point for point in points if point["place"] == place]
        top = [point["value"] for point in here if point["rank"] == 1]
        traces = [point["value"] for point in here if point["quantity"] == "trace"]
        row |= _mean_and_spread(f"{place}_eigenvalue", top) | _mean_and_spread(f"{place}_trace", traces)
        row[f"{place}s"] = len(traces)
    return row


def _valleys_of(found: Rows) -> dict[str, Any]:
    averages = [line for line in found if line["direction"] == "average"]
    row: dict[str, Any] = {"averages": sum(line["split"] == "test" for line in averages)}
    for direction in ("sign", "average"):
        known = [
            line["asymmetry"]
            for line in found
            if (line["direction"], line["split"]) == (direction, "train") and line["asymmetry"] is not None
        ]
        row[f"{direction}_asymmetry"] = float(np.median(known)) if known else None
    row["sign_slices"] = sum((line["direction"], line["split"]) == ("sign", "train") for line in found)
    for split in ("train", "test"):
        gains = [
            line["end"] - line["middle"]
            for line in averages
            if line["split"] == split and line["end"] is not None
        ]
        row |= _mean_and_spread(f"{split}_average_gain", gains)
    return row


def _mean_and_spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, as far as there are values enough."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)) if len(values) else None, f"{name}_std": std}


def headline(found: Rows) -> Headline:
    """One row per treatment: sharpness at networks and midpoints, and the gain of averaging weights."""

    def told(row: Mapping[str, Any], name: str, digits: int) -> str:
        return spread(row[name], row[f"{name}_std"], digits)

    return Headline(
        columns=("treatment", "largest\neigenvalue", "trace", "trace\nmidway", "averaging\ngains"),
        rows=tuple(
            (
                row["label"],
                told(row, "network_eigenvalue", 2),
                told(row, "network_trace", 1),
                told(row, "midpoint_trace", 1),
                told(row, "test_average_gain", 4),
            )
            for row in found
        ),
        caption=(
            "Hessian of the train loss: largest eigenvalue and trace at the networks, and\n"
            "the trace midway between two of them. Averaging gains: test loss (nats) at\n"
            "the end of training less that of the average over its last snapshots.\n"
            "Means ± sample standard deviations over networks or midpoints."
        ),
    )
