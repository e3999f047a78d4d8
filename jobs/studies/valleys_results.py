"""From slices and spectra to the numbers of the valleys study. Pure functions.

Values stay as they were measured, losses in nats; spreads are sample standard deviations. An asymmetry is the rise of
the loss on the forward side of a slice's lowest point over that on the backward side (`symcore.landscape.valleys`): 1
where both are alike, above 1 where the loss rises faster ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.headline import Headline, Rows, spread
from jobs.studies.grouping import by_treatment, lines, mean_and_spread, ordered
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
        ("middle_accuracy", pa.float64()),
        ("end_accuracy", pa.float64()),
    ]
)
CURVATURE = pa.schema(
    [
        *NAMES,
        ("place", pa.string()),
        ("number", pa.int64()),
        ("a", pa.int64()),  # the member, or the first of a pair; a, b, alpha: none while its run goes on
        ("b", pa.int64()),
        ("alpha", pa.float64()),  # 0 at a, 1 at b
        ("quantity", pa.string()),  # "eigenvalue" or "trace"
        ("rank", pa.int64()),  # of an eigenvalue, from the largest, 1
        ("value", pa.float64()),
        ("error", pa.float64()),  # an eigenvalue's residual, a trace's standard error
    ]
)


ENDS = [f"{split}_{quantity}" for split in ("train", "test") for quantity in ("loss", "accuracy")]
"""Columns of what trained networks reach, on whole splits: losses in nats, accuracies from 0 to 1."""
NETWORKS = pa.schema([*NAMES, ("network", pa.int64()), *((name, pa.float64()) for name in ENDS)])


def networks(metric: pa.Table, roles: Mapping[str, str]) -> pa.Table:
    """One row per trained network with its loss and accuracy, treatments in order; none before training is over.

    Args:
        metric: the metric table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/train/0": "r…"}.
    """
    final = metric.filter(pc.starts_with(metric["name"], "final/"))
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for row in by_treatment(final, "train", roles).to_pylist():
        own = found.setdefault((row["treatment"], row["label"], row["member"]), {})
        own[row["name"].removeprefix("final/").replace("/", "_")] = row["value"]
    rows = [
        {"treatment": treatment, "label": label, "network": member} | {name: own[name] for name in ENDS}
        for (treatment, label, member), own in found.items()
    ]
    return ordered(pa.Table.from_pylist(rows, schema=NETWORKS), ["network"])


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
        at | _valley(line, at["direction"])
        for at, line in lines(points, names, ("position", "loss", "accuracy"))
    ]
    return pa.Table.from_pylist(rows, schema=VALLEYS)


def _valley(line: Mapping[str, Array], direction: str) -> dict[str, Any]:
    """What one slice says."""
    positions, losses = line["position"], line["loss"]
    row: dict[str, Any] = {
        "middle": float(losses[len(losses) // 2]),
        "middle_accuracy": float(line["accuracy"][len(losses) // 2]),
    }
    if not np.isnan(losses).all():
        lowest = int(np.nanargmin(losses))
        row |= {"lowest": float(losses[lowest]), "position": float(positions[lowest])}
    if direction in JOINING and positions[-1] >= 1:
        row["end"] = float(np.interp(1.0, positions, losses))
        row["end_accuracy"] = float(np.interp(1.0, positions, line["accuracy"]))
    try:
        found = probe(positions, losses)
    except ValueError:  # the lowest point is too near an end, or a loss that is not finite, to tell
        return row
    if 0 < found.rise < np.inf:
        row["asymmetry"] = found.rise if found.sharp_side == 1 else 1 / found.rise
    return row | {name: found.ratio[zeta] for zeta, name in RATIOS.items() if np.isfinite(found.ratio[zeta])}


JOINING = ("between", "average")
"""Directions that lead to a network at position 1."""


def curvature(
    eigenvalues: pa.Table, traces: pa.Table, points: pa.Table, roles: Mapping[str, str]
) -> pa.Table:
    """One row per network or point between two and number that was found there, treatments in order.

    Args:
        eigenvalues: the curvature_eigenvalue table with a `run` column.
        traces: the curvature_trace table likewise.
        points: the curvature_point table likewise; of runs of an earlier version, and of those that go on, it has no rows.
        roles: the run that plays each role, say {"w/curvature/0": "r…"}.
    """
    where = {
        (row["treatment"], row["place"], row["number"]): {name: row[name] for name in ("a", "b", "alpha")}
        for row in by_treatment(points, "curvature", roles).to_pylist()
    }
    found = []
    for row in by_treatment(eigenvalues, "curvature", roles).to_pylist():
        error = row.pop("residual")
        found.append(row | {"quantity": "eigenvalue", "rank": row["rank"] + 1, "error": error})
    found += [
        row | {"quantity": "trace", "value": row["trace"]}
        for row in by_treatment(traces, "curvature", roles).to_pylist()
    ]
    found = [row | where.get((row["treatment"], row["place"], row["number"]), {}) for row in found]
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
        *((f"{name}{part}", pa.float64()) for name in ENDS for part in ("", "_std")),
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


def summary(found: pa.Table, curved: pa.Table, reached: pa.Table) -> pa.Table:
    """One row per treatment: its networks, curvature at them and midway, asymmetries, and what averaging weights gains.

    The gain is the loss at the end of training less that of the weight average.

    Args:
        found: what `valleys` makes.
        curved: what `curvature` makes.
        reached: what `networks` makes.
    """
    slices_of, points_of, ends_of = (_by_treatment(table) for table in (found, curved, reached))
    rows = [
        {"treatment": treatment, "label": label}
        | _ends_of(ends_of.get(treatment, []))
        | _curvature_of(points_of.get(treatment, []))
        | _valleys_of(slices_of.get(treatment, []))
        for treatment, label in LABELS.items()
        if treatment in slices_of or treatment in points_of or treatment in ends_of
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _by_treatment(table: pa.Table) -> dict[str, Rows]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["treatment"], []).append(row)
    return {**found}


def _ends_of(networks: Rows) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ENDS:
        row |= mean_and_spread(name, [network[name] for network in networks])
    return row


def _curvature_of(points: Rows) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for place in PLACES:
        here = [point for point in points if point["place"] == place]
        top = [point["value"] for point in here if point["rank"] == 1]
        traces = [point["value"] for point in here if point["quantity"] == "trace"]
        row |= mean_and_spread(f"{place}_eigenvalue", top) | mean_and_spread(f"{place}_trace", traces)
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
        row |= mean_and_spread(f"{split}_average_gain", gains)
    return row


def headline(found: Rows) -> Headline:
    """One row per treatment: sharpness at networks and midpoints, the gain of averaging weights, and the networks."""

    def told(row: Mapping[str, Any], name: str, digits: int) -> str:
        return spread(row[name], row[f"{name}_std"], digits)

    return Headline(
        columns=(
            "treatment",
            "largest\neigenvalue",
            "trace",
            "trace\nmidway",
            "averaging\ngains",
            "networks'\nloss",
            "networks'\naccuracy",
        ),
        rows=tuple(
            (
                row["label"],
                told(row, "network_eigenvalue", 2),
                told(row, "network_trace", 1),
                told(row, "midpoint_trace", 1),
                told(row, "test_average_gain", 4),
                told(row, "test_loss", 3),
                told(row, "test_accuracy", 3),
            )
            for row in found
        ),
        caption=(
            "Hessian of the train loss: largest eigenvalue and trace at the networks, and\n"
            "the trace midway between two of them. Averaging gains: test loss (nats) at\n"
            "the end of training less that of the average over its last snapshots.\n"
            "Networks' loss and accuracy: at the end of training, on all test images.\n"
            "Means ± sample standard deviations over networks or midpoints."
        ),
    )
