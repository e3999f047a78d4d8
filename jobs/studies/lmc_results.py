"""From path points to the numbers of the LMC study: barriers, endpoints and curves per treatment. Pure functions.

A barrier is a rise of the loss, or a drop of the accuracy, so that positive is worse for both. `barrier_midpoint` is
the paper's (Lim et al. 2024, section 4.1): halfway minus the mean of the endpoints. `barrier_maximum` is the largest
distance over the whole path from the straight line between the endpoints. Spreads are sample standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.headline import Headline, Rows, endpoints, spread
from symcore.metrics import Array, barrier_maximum, barrier_midpoint

LABELS = {
    "standard": "Standard",
    "rebasin": "Git Re-Basin",
    "rebasin_repair": "Re-Basin + REPAIR",
    "rebasin_unsigned": "Git Re-Basin, unsigned",
    "activations": "Activation matching",
    "straight_through": "Straight-through",
    "sinkhorn": "Sinkhorn re-basin",
    "cycle": "Cycle-consistent",
    "sigma": "σ-Asymmetric",
    "w": "W-Asymmetric",
    "w_figlu": "W with FiGLU",
    "w0": "W, κ = 0",
    "syre": "syre",
    "asym_init": "Asymmetric init",
    "fixed_biases": "Fixed biases",
}
"""Treatments in the order and by the names in which people see them."""
QUANTITIES = {"loss": 1.0, "accuracy": -1.0, "calibrated loss": 1.0}
"""What is measured on a path, and the sign that makes a barrier in it positive."""
PLACE = ["run", "pair", "alpha", "split"]
"""Columns that say of which point a row is."""


@dataclass(frozen=True)
class Paths:
    """All finished paths of one treatment on one split."""

    treatment: str
    split: str
    pairs: tuple[int, ...]
    """The study's numbers of the pairs, ascending."""
    alphas: Array
    """[alpha]"""
    values: dict[str, Array]
    """"loss" (nats), "accuracy" (0 to 1) and, where it was measured, "calibrated loss" (nats), [pair, alpha]."""


def paths(
    points: pa.Table, roles: Mapping[str, str], block: int, calibrated: pa.Table | None = None
) -> list[Paths]:
    """Sorts path points by treatment and split; treatments of which nothing is done are left out.

    Args:
        points: the path_point table with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/path/0": "r…"}.
        block: the study's pairs per block, which turns a run's pairs into the study's.
        calibrated: the path_calibrated table with a `run` column, if losses at fitted temperatures are wanted too.
    """
    if calibrated is not None and calibrated.num_rows:
        best = calibrated.select([*PLACE, "loss"]).rename_columns([*PLACE, "calibrated loss"])
        points = points.join(best, PLACE)
    found = []
    for treatment in LABELS:
        runs = {
            run: int(role.rpartition("/")[2])
            for role, run in roles.items()
            if role.startswith(f"{treatment}/path/")
        }
        own = points.filter(pc.is_in(points["run"], pa.array(list(runs), pa.string())))
        for split in ("test", "train"):
            rows = own.filter(pc.equal(own["split"], split))
            if rows.num_rows:
                found.append(_stack(treatment, split, rows, {r: b * block for r, b in runs.items()}))
    return found


def _stack(treatment: str, split: str, rows: pa.Table, first_pair: Mapping[str, int]) -> Paths:
    run_names, run_index = np.unique(rows["run"].to_numpy(), return_inverse=True)
    first = np.array([first_pair[name] for name in run_names])
    pair = first[run_index] + rows["pair"].to_numpy()
    alpha = rows["alpha"].to_numpy()
    order = np.lexsort((alpha, pair))
    numbers = np.unique(pair)
    shape = (len(numbers), -1)
    return Paths(
        treatment=treatment,
        split=split,
        pairs=tuple(int(n) for n in numbers),
        alphas=alpha[order].reshape(shape)[0],
        values={
            name: rows[name].to_numpy()[order].reshape(shape)
            for name in QUANTITIES
            if name in rows.column_names and not rows[name].null_count
        },
    )


def _each(all_paths: Sequence[Paths]) -> Iterator[tuple[dict[str, str], Paths, Array, float]]:
    """What names a row, its paths, their values [pair, alpha], and the sign of a barrier in them."""
    for one in all_paths:
        for quantity, values in one.values.items():
            names = {
                "treatment": one.treatment,
                "label": LABELS[one.treatment],
                "split": one.split,
                "quantity": quantity,
            }
            yield names, one, values, QUANTITIES[quantity]


def _spread(values: Array) -> float | None:
    """Sample standard deviation; none for a single value."""
    return float(values.std(ddof=1)) if values.size > 1 else None


NAMES = [
    ("treatment", pa.string()),
    ("label", pa.string()),
    ("split", pa.string()),
    ("quantity", pa.string()),
]
SUMMARY = pa.schema(
    [
        *NAMES,
        ("barrier_midpoint", pa.float64()),
        ("barrier_midpoint_std", pa.float64()),
        ("barrier_maximum", pa.float64()),
        ("barrier_maximum_std", pa.float64()),
        ("pairs", pa.int64()),
        ("endpoint", pa.float64()),
        ("endpoint_std", pa.float64()),
        ("networks", pa.int64()),
        ("paper_barrier_midpoint", pa.float64()),
        ("paper_barrier_midpoint_std", pa.float64()),
    ]
)
BY_PAIR = pa.schema(
    [
        *NAMES,
        ("pair", pa.int64()),
        ("barrier_midpoint", pa.float64()),
        ("barrier_maximum", pa.float64()),
        ("endpoint_a", pa.float64()),
        ("midpoint", pa.float64()),
        ("endpoint_b", pa.float64()),
    ]
)
CURVES = pa.schema(
    [*NAMES, ("alpha", pa.float64()), ("mean", pa.float64()), ("std", pa.float64()), ("pairs", pa.int64())]
)
PATHS = pa.schema([*NAMES, ("pair", pa.int64()), ("alpha", pa.float64()), ("value", pa.float64())])


def summary(all_paths: Sequence[Paths], paper: Mapping[str, tuple[float, float]]) -> pa.Table:
    """One row per treatment, split and quantity: means over pairs, endpoints over networks, the paper's beside them."""

    def row(one: Paths, values: Array, sign: float) -> dict[str, Any]:
        midpoint, maximum = barrier_midpoint(sign * values), barrier_maximum(sign * values, one.alphas)
        ends = values[:, [0, -1]]
        return {
            "barrier_midpoint": float(midpoint.mean()),
            "barrier_midpoint_std": _spread(midpoint),
            "barrier_maximum": float(maximum.mean()),
            "barrier_maximum_std": _spread(maximum),
            "pairs": len(values),
            "endpoint": float(ends.mean()),
            "endpoint_std": _spread(ends),
            "networks": ends.size,
        }

    rows = []
    for names, one, values, sign in _each(all_paths):
        stated = paper.get(one.treatment) if (names["split"], names["quantity"]) == ("test", "loss") else None
        mean, std = stated or (None, None)
        beside = {"paper_barrier_midpoint": mean, "paper_barrier_midpoint_std": std}
        rows.append(names | row(one, values, sign) | beside)
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def by_pair(all_paths: Sequence[Paths]) -> pa.Table:
    """One row per pair: its barriers, endpoints and midpoint."""

    def columns(one: Paths, values: Array, sign: float) -> dict[str, Any]:
        return {
            "pair": one.pairs,
            "barrier_midpoint": barrier_midpoint(sign * values),
            "barrier_maximum": barrier_maximum(sign * values, one.alphas),
            "endpoint_a": values[:, 0],
            "midpoint": values[:, values.shape[1] // 2],
            "endpoint_b": values[:, -1],
        }

    return _table(all_paths, BY_PAIR, columns)


def curves(all_paths: Sequence[Paths]) -> pa.Table:
    """One row per alpha: mean and spread over pairs."""

    def columns(one: Paths, values: Array, sign: float) -> dict[str, Any]:
        del sign
        single = len(values) == 1
        return {
            "alpha": one.alphas,
            "mean": values.mean(axis=0),
            "std": [None] * len(one.alphas) if single else values.std(axis=0, ddof=1),
            "pairs": [len(values)] * len(one.alphas),
        }

    return _table(all_paths, CURVES, columns)


def as_table(all_paths: Sequence[Paths]) -> pa.Table:
    """One row per pair and alpha."""

    def columns(one: Paths, values: Array, sign: float) -> dict[str, Any]:
        del sign
        return {
            "pair": np.repeat(one.pairs, len(one.alphas)),
            "alpha": np.tile(one.alphas, len(one.pairs)),
            "value": values.ravel(),
        }

    return _table(all_paths, PATHS, columns)


def _table(
    all_paths: Sequence[Paths], schema: pa.Schema, columns: Callable[[Paths, Array, float], dict[str, Any]]
) -> pa.Table:
    """Rows of all treatments, splits and quantities under each other."""
    parts = []
    for names, one, values, sign in _each(all_paths):
        own = columns(one, values, sign)
        length = len(next(iter(own.values())))
        named = {name: [value] * length for name, value in names.items()}
        parts.append(pa.table(named | own, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def headline(summary: Rows) -> Headline:
    """One row per treatment: loss barriers and endpoints on the test images, beside the paper's where it compares."""
    test = {(row["label"], row["quantity"]): row for row in summary if row["split"] == "test"}
    compared = any(row["paper_barrier_midpoint"] is not None for row in test.values())
    second = "paper_barrier_midpoint" if compared else "barrier_maximum"

    def told(row: Mapping[str, Any], name: str) -> str:
        return spread(row[name], row[f"{name}_std"])

    rows = []
    for label in dict.fromkeys(label for label, _ in test):
        loss, accuracy = test[label, "loss"], test[label, "accuracy"]
        barriers = told(loss, "barrier_midpoint"), told(loss, second)
        rows.append((label, *barriers, *endpoints(loss, accuracy), str(loss["pairs"])))
    other = "paper\nmidpoint" if compared else "barrier\nmaximum"
    return Headline(
        columns=("treatment", "barrier\nmidpoint", other, "endpoint\nloss", "endpoint\naccuracy", "pairs"),
        rows=tuple(rows),
        caption=(
            "Test set. Barriers are rises of the loss, mean ± sample standard deviation over\n"
            "disjoint pairs; endpoints are over the networks of the pairs."
        ),
    )
