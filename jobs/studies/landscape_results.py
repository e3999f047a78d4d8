"""From cells to the numbers of the landscape study: how flat each surface is, and the barriers on it. Pure functions.

Values stay as they were measured, loss in nats and accuracy from 0 to 1; spreads are sample standard deviations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.headline import Headline, Rows, spread
from jobs.kinds.surface import FLAT, edge_barriers, flat_share
from jobs.studies.grouping import mean_and_spread
from jobs.studies.lmc_results import LABELS
from symcore.metrics import Array

PLANES = ("random", "through", "trajectory")
"""Kinds of planes in the order in which people see them."""
NAMES = [
    ("treatment", pa.string()),
    ("label", pa.string()),
    ("plane", pa.string()),
    ("network", pa.int64()),  # in the middle of a random plane, or whose training it is; 0 for three
]


def by_surface(records: pa.Table, roles: Mapping[str, str], order: Sequence[str]) -> pa.Table:
    """Records with the columns of `NAMES` in place of `run`, treatments and planes in order.

    Args:
        records: surface_cell or surface_mark with a `run` column; runs that play no role are ignored.
        roles: the run that plays each role, say {"w/random/0": "r…"}.
        order: columns by which the rows of a surface are sorted.
    """
    parts = [(run, *role.split("/")) for role, run in roles.items()]
    known = [
        (treatment, plane, int(network), run) for run, treatment, plane, network in parts if plane in PLANES
    ]
    known.sort(key=lambda surface: (list(LABELS).index(surface[0]), PLANES.index(surface[1]), surface[2]))
    runs = pa.array([run for *_, run in known], pa.string())
    placed = records.append_column("place", pc.index_in(records["run"], value_set=runs))
    placed = placed.filter(pc.is_valid(placed["place"]))
    placed = placed.sort_by([(name, "ascending") for name in ("place", *order)])
    named = {
        "treatment": [treatment for treatment, *_ in known],
        "label": [LABELS[treatment] for treatment, *_ in known],
        "plane": [plane for _, plane, *_ in known],
        "network": [network for _, _, network, _ in known],
    }
    place = placed["place"].combine_chunks()
    columns = {name: pa.array(named[name], kind).take(place) for name, kind in NAMES}
    rows = placed.drop_columns(["run", "place"])
    return pa.table(columns | dict(zip(rows.column_names, rows.columns, strict=True)))


PLANES_SCHEMA = pa.schema(
    [
        *NAMES,
        ("cells", pa.int64()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
        ("lowest_loss", pa.float64()),
        ("highest_loss", pa.float64()),
        ("flat_share", pa.float64()),
        ("barrier_midpoint", pa.float64()),
        ("barrier_midpoint_std", pa.float64()),
        (
            "explained_x",
            pa.float64(),
        ),  # share of a training run's squared distances to its end along each axis
        ("explained_y", pa.float64()),
    ]
)
SUMMARY = pa.schema(
    [
        *NAMES[:2],
        ("split", pa.string()),
        ("images", pa.int64()),
        *((name + part, pa.float64()) for name in ("flat_share", "highest_loss") for part in ("", "_std")),
        ("surfaces", pa.int64()),
        ("barrier_midpoint", pa.float64()),
        ("barrier_midpoint_std", pa.float64()),
        ("pairs", pa.int64()),
        *((name + part, pa.float64()) for name in ("loss", "accuracy") for part in ("", "_std")),
        ("networks", pa.int64()),
    ]
)


def by_plane(cells: pa.Table, marks: pa.Table, axes: pa.Table, planned: int) -> pa.Table:
    """One row per surface: its networks' mean loss and accuracy, its extremes, and what it says.

    A random plane tells how flat the loss is, and only once it is whole; a plane through three networks the midpoint
    barriers between them, mean and spread over the three pairs; one along a training run how much of it the plane holds.

    Args:
        cells: what `by_surface` makes of surface_cell.
        marks: what `by_surface` makes of surface_mark.
        axes: what it makes of surface_axis.
        planned: cells of a whole surface.
    """
    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for mark in marks.to_pylist():
        found.setdefault(tuple(mark[name] for name, _ in NAMES), {})[mark["name"]] = mark
    explained: dict[tuple[Any, ...], dict[str, float]] = {}
    for axis in axes.to_pylist():
        held = explained.setdefault(tuple(axis[name] for name, _ in NAMES), {})
        held[f"explained_{axis['axis']}"] = axis["explained"]
    rows = []
    for values, at in found.items():
        names = dict(zip((name for name, _ in NAMES), values, strict=True))
        own = cells.filter(reduce(and_, (pc.field(name) == value for name, value in names.items())))
        told = _plane(names["plane"], own["loss"].to_numpy(), at, planned)
        rows.append(names | told | explained.get(values, {}))
    return pa.Table.from_pylist(rows, schema=PLANES_SCHEMA)


def _plane(plane: str, losses: Array, at: Mapping[str, Mapping[str, Any]], planned: int) -> dict[str, Any]:
    """What a surface says, from the kind of its plane, the losses of its cells and its marks by name."""
    networks = [at[name] for name in "abc" if name in at]
    row: dict[str, Any] = {name: float(np.mean([n[name] for n in networks])) for name in ("loss", "accuracy")}
    row["cells"] = len(losses)
    if len(losses) == planned:
        row |= {"lowest_loss": float(np.fmin.reduce(losses)), "highest_loss": float(np.fmax.reduce(losses))}
        row |= {"flat_share": flat_share(losses, row["loss"])} if plane == "random" else {}
    if plane == "through" and len(networks) == 3:
        barriers = edge_barriers({name: mark["loss"] for name, mark in at.items()})
        row |= mean_and_spread("barrier_midpoint", barriers.tolist())
    return row


def summary(planes: pa.Table, marks: pa.Table, split: str, images: int) -> pa.Table:
    """One row per treatment: its random planes, the barriers between its three networks, and these networks.

    Args:
        planes: what `by_plane` makes.
        marks: what `by_surface` makes of surface_mark.
        split: part of the data set that was evaluated on.
        images: how many of its images.
    """
    rows = []
    for name in dict.fromkeys(planes["treatment"].to_pylist()):
        own = [row for row in planes.to_pylist() if row["treatment"] == name]
        around = [row for row in own if row["flat_share"] is not None]
        row = {"treatment": name, "label": LABELS[name], "split": split, "images": images}
        for quantity in ("flat_share", "highest_loss"):
            row |= mean_and_spread(quantity, [surface[quantity] for surface in around])
        networks = [
            mark
            for mark in marks.to_pylist()
            if (mark["treatment"], mark["plane"]) == (name, "through") and len(mark["name"]) == 1
        ]
        for quantity in ("loss", "accuracy"):
            row |= mean_and_spread(quantity, [network[quantity] for network in networks])
        between = [row for row in own if row["plane"] == "through"]
        for quantity in ("barrier_midpoint", "barrier_midpoint_std"):
            row[quantity] = between[0][quantity] if between else None
        row |= {"surfaces": len(around), "pairs": 3 * len(between), "networks": len(networks)}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def headline(summary: Rows) -> Headline:
    """One row per treatment: how flat its random planes are, and how high the loss is midway between its networks."""

    def told(row: Mapping[str, Any], name: str) -> str:
        return spread(row[name], row[f"{name}_std"])

    shown = ("flat_share", "barrier_midpoint", "loss", "accuracy")
    images = f"{summary[0]['images']:,} {summary[0]['split']} images. " if summary else ""
    return Headline(
        columns=(
            "treatment",
            "flat\nshare",
            "barrier\nmidpoint",
            "networks'\nloss",
            "networks'\naccuracy",
        ),
        rows=tuple((row["label"], *(told(row, name) for name in shown)) for row in summary),
        caption=(
            f"{images}Flat share: cells of the random planes at most\n"
            f"{FLAT:g} nats above the network in their middle. Barrier: rise of the loss\n"
            "midway between three networks, over their pairs.\n"
            "Means ± sample standard deviations."
        ),
    )
