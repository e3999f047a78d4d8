"""AdamW in the product that makes the gradient: one kernel forms dY^T X tile by tile and updates each tile at once.

The gradient of a large weight then never goes to memory and back, which is a quarter of what an update moves. The
product is TF32, so this is for that precision; only a GPU's own module may import this file, for Triton comes with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from symcore.gradients import Product
from symcore.optimisers import blocks
from symcore.optimisers.adamw import BETA1, BETA2, EPSILON, Block

LARGEST_BATCH = 64
"""Images whose product a tile takes in one go; more go through the library's product and a separate update."""
TILE = 32
"""Rows and columns that one warp updates; the fastest of the shapes tried on an H200 (benchmarks/README.md)."""


def suited(trained: Sequence[blocks.Block], size: int) -> list[str]:
    """The matrices without offsets that are a block of AdamW's of their own, if a minibatch of `size` images fits."""
    if size > LARGEST_BATCH:
        return []
    own = [block for block in trained if isinstance(block, Block) and block.pull is None]
    alone = [block.layout.shapes for block in own if len(block.layout.shapes) == 1]
    shapes = [next(iter(shape.items())) for shape in alone]
    return [name for name, shape in shapes if len(shape) == 2]


def update(block: Block, gradient: Product, steps: Tensor) -> None:
    """What `Block.update` does with the same gradient, up to the rounding of TF32."""
    rows, columns = next(iter(block.layout.shapes.values()))
    members, batch = gradient.left.shape[:2]
    grid = (triton.cdiv(rows, TILE), triton.cdiv(columns, TILE), members)
    _update[grid](
        block.weights,
        block.first,
        block.second,
        gradient.left.contiguous(),
        gradient.right.contiguous(),
        block.rate,
        block.decay,
        steps,
        rows,
        columns,
        batch,
        int(len(block.rate) > 1),
        int(len(block.decay) > 1),
        BATCH=LARGEST_BATCH,
        TILE=TILE,
        BETA1=BETA1,
        BETA2=BETA2,
        LOG_BETA1=math.log(BETA1),
        LOG_BETA2=math.log(BETA2),
        EPSILON=EPSILON,
        num_warps=1,
    )


@triton.jit
def _update(
    weights,
    first,
    second,
    left,
    right,
    rates,
    decays,
    steps,
    rows,
    columns,
    batch,
    rate_stride,
    decay_stride,
    BATCH: tl.constexpr,
    TILE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """One tile of one member; weights and moments [member, row, column], left [member, batch, row], right [.., column]."""
    member = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    image = tl.arange(0, BATCH)
    entry = row[:, None] * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = member * rows * columns + entry

    left_at = left + member * batch * rows + image[:, None] * rows + row[None, :]
    left_inside = (image < batch)[:, None] & (row < rows)[None, :]
    right_at = right + member * batch * columns + image[:, None] * columns + column[None, :]
    right_inside = (image < batch)[:, None] & (column < columns)[None, :]
    dy = tl.load(left_at, left_inside, other=0.0)
    x = tl.load(right_at, right_inside, other=0.0)
    w = tl.load(weights + at, inside)
    m = tl.load(first + at, inside)
    v = tl.load(second + at, inside)
    gradient = tl.dot(tl.trans(dy), x, input_precision="tf32")

    rate = tl.load(rates + member * rate_stride)
    keep = 1 - rate * tl.load(decays + member * decay_stride)
    count = tl.load(steps)
    first_correction = -libdevice.expm1(count * LOG_BETA1)
    second_correction = tl.sqrt(-libdevice.expm1(count * LOG_BETA2))
    m += (gradient - m) * (1 - BETA1)
    v = v * BETA2 + gradient * gradient * (1 - BETA2)
    moved = w * keep - m / (tl.sqrt(v) / second_correction + EPSILON) * (rate / first_correction)
    tl.store(weights + at, tl.where(v == float("inf"), w, moved), inside)
    tl.store(first + at, m, inside)
    tl.store(second + at, v, inside)
