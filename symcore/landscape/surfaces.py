"""Surfaces of the loss: a grid of cells on a plane, from coarse to fine, every cell a member of one population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from symcore.data.nodes import OUTSIDE
from symcore.data.sources import Dataset, Split
from symcore.landscape.planes import Plane
from symcore.metrics import Array, Evaluator
from symcore.randomness import stream

CELLS = {"cpu": 128, "cuda": 1_024}
"""Cells between two reports; what is linear in the weights is computed anew for each such block."""


@dataclass(frozen=True)
class Cells:
    """Loss (nats) and accuracy (0 to 1) at cells of a plane, both [cell]."""

    loss: Array
    accuracy: Array


def rounds(rows: int, columns: int) -> list[npt.NDArray[np.int64]]:
    """The cells of a grid from coarse to fine, so that a surface can be seen before it is whole.

    The first round is a lattice with the corners in it, its spacing a power of two and at most a quarter of the longer
    side. Each next round halves the spacing and leaves out what was there before.

    Returns:
        Cells (row, column) of each round, int64 [n, 2]; every cell is in exactly one.

    Raises:
        ValueError: if there is no row or no column.
    """
    if min(rows, columns) < 1:
        msg = f"rows, columns: {rows} x {columns} has no cell; accepted: 1 or more of each"
        raise ValueError(msg)
    coarsest = max(0, (max(rows, columns) - 1).bit_length() - 3)
    levels = np.minimum.outer(_levels(rows), _levels(columns)).clip(max=coarsest)
    return [np.argwhere(levels == level) for level in range(coarsest, -1, -1)]


def _levels(size: int) -> npt.NDArray[np.int64]:
    """How often each place of an axis can be halved; the ends belong to every lattice."""
    levels = np.full(size, 62, dtype=np.int64)
    inner = np.arange(size)[1:-1]
    levels[1:-1] = np.log2(inner & -inner)
    return levels


def subset(dataset: Dataset, split: str, images: int, seed: int) -> Dataset:
    """The data set with `images` images in one split: as many of each class as there are, or as of any other.

    A seed puts the images in one order and the first are taken, so a larger subset holds the smaller ones.
    """
    whole = dataset.splits[split]
    if images >= len(whole):
        return dataset
    labels = whole.labels.cpu().numpy()
    order = stream(seed, "subset").permutation(len(labels))
    order = order[labels[order] >= 0]
    turn = np.empty(len(labels), dtype=np.int64)  # an image's place among those of its class
    for label in np.unique(labels[order]):
        own = order[labels[order] == label]
        turn[own] = np.arange(len(own))
    chosen = np.sort(order[np.argsort(turn[order], kind="stable")][:images])
    if dataset.graph:
        counted = torch.full_like(whole.labels, OUTSIDE)
        counted[chosen] = whole.labels[chosen]
        part = Split(whole.images, counted)
    else:
        part = Split(whole.images[chosen], whole.labels[chosen])
    calibrated_on = dataset.calibration if split == "train" else dataset.calibrated_on
    return replace(dataset, splits={**dataset.splits, split: part}, calibrated_on=calibrated_on)


def evaluate(
    evaluator: Evaluator,
    plane: Plane,
    buffers: Mapping[str, Tensor],
    split: str,
    xs: Array,
    ys: Array,
    on_cells: Callable[[int], None] = lambda _: None,
) -> Cells:
    """Loss and accuracy at the cells (xs, ys) of a plane, each [cell].

    Args:
        evaluator: for the network's module.
        plane: of effective weights.
        buffers: the network's buffers, [*shape].
        split: which part of the data set, say "test".
        xs: coordinates along the plane's first direction.
        ys: coordinates along its second direction.
        on_cells: called with the number of cells done; may raise to stop.
    """
    coefficients, spanning = plane.coefficients(xs, ys), plane.spanning()
    cells = Cells(np.empty(len(xs)), np.empty(len(xs)))
    at_once = CELLS[coefficients.device.type]
    for first in range(0, len(xs), at_once):
        part = slice(first, min(first + at_once, len(xs)))
        cells.loss[part], cells.accuracy[part] = evaluator.combinations(
            coefficients[part], spanning, buffers, split
        )
        on_cells(part.stop)
    return cells
