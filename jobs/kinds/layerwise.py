"""The layerwise kind: loss on the way from one network to itself with some layers of another, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import ValidationInfo, model_validator

from jobs.designs import blueprint, field_error, rows_together, size
from jobs.estimates import Estimate
from jobs.inputs import dataset
from jobs.job import Job
from jobs.kinds.ends import PairsSpec, by_pair, check_ends, ends, of_pairs, of_points, parts
from jobs.kinds.interpolate import Points, Splits
from jobs.kinds.train import Spec as TrainSpec
from jobs.records import Column
from jobs.specs import RunSpec, SpecHash, in_order
from jobs.summaries import each_once, of_networks
from symcore.asymmetry import Parameters
from symcore.data.sources import SOURCES
from symcore.landscape.layerwise import ORDERS, Order, grafted, layers, moving
from symcore.landscape.paths import PATHS_AT_ONCE, PathPoints, alphas, linear_path
from symcore.metrics import Evaluator
from symcore.precision import Precision, arithmetic
from symcore.settings import is_stored


class Spec(PairsSpec):
    """Layer-wise paths between pairs of one trained population (Adilova et al. 2024)."""

    kind: Literal["layerwise"] = "layerwise"
    version: Literal[1, 2] = 2
    """2: a recurrent cell is one layer. 1, which took each of its maps for one, is still read and no longer made."""
    orders: Annotated[tuple[Order, ...], in_order(ORDERS)] = ORDERS
    """Which layers move at a time: one alone, all from the input up to it, all from it up to the output."""
    points: Points = 25
    """Points on each path, endpoints included; odd."""
    splits: Splits = ("test",)
    """Parts of the data set that every point is evaluated on."""
    precision: Precision = "float32"
    """Arithmetic of matrix products."""

    @model_validator(mode="after")
    def _newest(self, info: ValidationInfo) -> Self:
        if self.version != 2 and not is_stored(info):
            msg = "1 is of an earlier version of the lab, whose layers were single maps of recurrent cells; accepted: 2, in a study begun anew"
            raise field_error(Spec, ("version",), self.version, msg)
        return self


TABLES = {
    "layer_point": pa.schema(
        [
            pa.field("pair", pa.int16(), nullable=False),  # place in the spec's pairs
            pa.field(
                "order", pa.string(), nullable=False
            ),  # which layers move, see symcore.landscape.layerwise
            pa.field("layer", pa.int16(), nullable=False),  # from the input, from 0
            pa.field("name", pa.string(), nullable=False),  # of the module
            pa.field("alpha", pa.float64(), nullable=False),  # 0: a's weights, 1: b's in the layers that move
            pa.field("split", pa.string(), nullable=False),
            pa.field("loss", pa.float64(), nullable=False),  # mean cross-entropy, nats
            pa.field("accuracy", pa.float64(), nullable=False),  # 0 to 1
        ]
    )
}


def check_inputs(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> None:
    """Makes sure that the networks exist, on this data, and are aligned pair by pair; see `check_ends`."""
    check_ends(spec, upstream)


def title(spec: Spec) -> str:
    """Whose layers are exchanged."""
    aligned = " aligned" if spec.alignment else ""
    pairs = "pair" if len(spec.pairs) == 1 else "pairs"
    return f"Evaluate layer-wise paths of {len(spec.pairs)}{aligned} {pairs} on {spec.data}"


def estimate(spec: Spec, upstream: Mapping[SpecHash, RunSpec]) -> Estimate:
    """One forward pass per order, layer, point and image, or node."""
    source = upstream[spec.source]
    assert isinstance(source, TrainSpec)
    one = size(source.network, spec.data)
    network = blueprint(source.network, spec.data)
    paths = len(spec.orders) * len(layers(network))
    networks = len(spec.pairs) * spec.points * paths
    images = sum(SOURCES[spec.data].rows(split) for split in spec.splits)
    at_once = min(len(spec.pairs) * spec.points, PATHS_AT_ONCE["cpu"])
    rows = rows_together(source.network, spec.data)
    return Estimate(
        flop=float(one.forward_flop) * networks * images,
        bytes_memory=4 * (2 * at_once * one.parameters + 4 * rows * one.activations),
        steps=-(-networks * images // rows),
    )


def execute(spec: Spec, job: Job) -> dict[str, float]:
    """Evaluates every path on every split.

    Raises:
        StoppedError: if the job was asked to stop; it goes on with the paths that are not recorded.
    """
    images = dataset(spec, job)
    first, a, b = ends(spec, job)
    evaluator = Evaluator(
        first.network,
        images,
        stacked_buffers=first.stacked,
        in_bfloat16=spec.precision == "bfloat16",
        on_chunk=job.pause_point,
    )
    found = layers(first.network)
    names = list(found)
    planned = [(s, o, layer) for s in spec.splits for o in spec.orders for layer in range(len(names))]
    rises: dict[str, list[float]] = {}
    told: dict[str, float] = {}
    firsts = [member for member, _ in spec.pairs]
    with arithmetic(spec.precision):
        for done, (split, order, layer) in enumerate(planned):
            job.progress(done, len(planned), f"{split} split, {names[layer]}")
            taken = [found[names[place]] for place in moving(layer, len(names), order)]
            path = _Path(split, order, layer, names[layer], a, grafted(a, b, taken))
            points = _recorded(spec, path, evaluator, first.buffers, job)
            starts = (each_once(firsts, values[:, 0]) for values in (points.loss, points.accuracy))
            told |= of_networks(split, "of the first networks", *starts)
            rise = float((points.loss[:, spec.points // 2] - points.loss[:, 0]).mean())
            rises.setdefault(f"{split}/{order}, highest rise midway", []).append(rise)
    job.progress(len(planned), len(planned))
    return told | {name: max(values) for name, values in rises.items()}


class _Path(NamedTuple):
    """The way from every first network to itself with some layers of the second."""

    split: str
    order: Order
    layer: int
    name: str
    start: Parameters
    end: Parameters


def _recorded(spec: Spec, path: _Path, evaluator: Evaluator, buffers: Parameters, job: Job) -> PathPoints:
    """Records every point of every pair's path, those apart that an earlier attempt recorded."""

    def columns(part: slice) -> dict[str, Column]:
        start, end = of_pairs(part, path.start), of_pairs(part, path.end)
        own = of_pairs(part, buffers) if evaluator.stacked_buffers else buffers
        found = linear_path(evaluator, start, end, own, path.split, alphas(spec.points))
        points = of_points(part, {"loss": found.loss, "accuracy": found.accuracy})
        rows = found.loss.size
        return points | {
            "order": [path.order] * rows,
            "layer": np.full(rows, path.layer, dtype=np.int16),
            "name": [path.name] * rows,
            "split": [path.split] * rows,
        }

    recorded = [job.once("layer_point", partial(columns, part)) for part in parts(spec, spec.points)]
    return PathPoints.join(
        [
            PathPoints(*(by_pair(rows, name, spec.points) for name in ("loss", "accuracy")))
            for rows in recorded
        ]
    )
