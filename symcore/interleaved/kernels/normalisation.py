"""Layer normalisation of maps [image, row, column, member, channel], with sum and ReLU, in one visit to memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

VALUES_HELD = 16_384
"""A program keeps an image's map of so many values in registers, and a larger one is read twice."""
LARGE_FORWARD, LARGE_BACKWARD = (16_384, 32), (2_048, 4)
"""Values of a large map that a program takes at once, and its warps: the fastest of those tried on an H200."""
SPLITS = 4
"""Programs, at least, that share a large map backward."""
MOST_STEPS = 16
"""A program's steps are unrolled."""
ROWS_ADDED, COLUMNS_ADDED = 512, 16
"""Parts of how many sums a program adds up at once, in one order, so that a run repeats."""


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, *, relu: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `operations.normalise`; also the mean and 1 / standard deviation, float32 [image, member]."""
    images, height, width, members, channels = x.shape
    y = torch.empty_like(x)
    mean = torch.empty(images, members, device=x.device)
    inverse = torch.empty_like(mean)
    _normalise[members, images](
        x,
        weight,
        bias,
        x if residual is None else residual,
        y,
        mean,
        inverse,
        epsilon,
        members,
        weight.stride(0),
        bias.stride(0),
        PIXELS=height * width,
        CHANNELS=channels,
        RESIDUAL=residual is not None,
        RELU=relu,
        **_tile(height * width, channels, LARGE_FORWARD),
    )
    return y, mean, inverse


def _tile(pixels: int, channels: int, large: tuple[int, int]) -> dict[str, int]:
    """How many pixels of one image a program takes at once, and with how many warps."""
    wide, block = triton.next_power_of_2(channels), triton.next_power_of_2(pixels)
    if wide * block > VALUES_HELD:
        return {"BLOCK": max(1, large[0] // wide), "WIDE": wide, "num_warps": large[1]}
    return {"BLOCK": block, "WIDE": wide, "num_warps": min(16, max(1, block * wide // 512))}


@triton.jit
def _normalise(
    x,
    weight,
    bias,
    residual,
    y,
    means,
    inverses,
    epsilon,
    members,
    weight_stride,
    bias_stride,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One image of one member."""
    member, image = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, WIDE)
    known = channel < CHANNELS
    pixel = tl.arange(0, BLOCK)
    start = image.to(tl.int64) * PIXELS * members * CHANNELS + member * CHANNELS
    at = pixel[:, None] * members * CHANNELS + channel[None, :]
    step = BLOCK * members * CHANNELS
    entries = PIXELS * CHANNELS
    w = tl.load(weight + member * weight_stride + channel, known, other=0.0)
    b = tl.load(bias + member * bias_stride + channel, known, other=0.0)
    if BLOCK >= PIXELS:
        inside = (pixel < PIXELS)[:, None] & known[None, :]
        value = tl.load(x + start + at, inside, other=0.0).to(tl.float32)
        mean = tl.sum(value) / entries
        apart = tl.where(inside, value - mean, 0.0)
        inverse = tl.rsqrt(tl.sum(apart * apart) / entries + epsilon)
        out = apart * inverse * w[None, :] + b[None, :]
        if RESIDUAL:
            out += tl.load(residual + start + at, inside, other=0.0).to(tl.float32)
        if RELU:
            out = tl.maximum(out, 0.0)
        tl.store(y + start + at, out, inside)
    else:
        total = tl.zeros([BLOCK, WIDE], tl.float32)
        squares = tl.zeros([BLOCK, WIDE], tl.float32)
        for block in range(tl.cdiv(PIXELS, BLOCK)):
            inside = (pixel < PIXELS - block * BLOCK)[:, None] & known[None, :]
            value = tl.load(x + start + block * step + at, inside, other=0.0).to(tl.float32)
            total += value
            squares += value * value
        mean = tl.sum(total) / entries
        inverse = tl.rsqrt(tl.maximum(tl.sum(squares) / entries - mean * mean, 0.0) + epsilon)
        for block in range(tl.cdiv(PIXELS, BLOCK)):
            inside = (pixel < PIXELS - block * BLOCK)[:, None] & known[None, :]
            here = start + block * step + at
            value = tl.load(x + here, inside, other=0.0).to(tl.float32)
            out = (value - mean) * inverse * w[None, :] + b[None, :]
            if RESIDUAL:
                out += tl.load(residual + here, inside, other=0.0).to(tl.float32)
            if RELU:
                out = tl.maximum(out, 0.0)
            tl.store(y + here, out, inside)
    tl.store(means + image * members + member, mean)
    tl.store(inverses + image * members + member, inverse)


def normalise_backward(
    gradient: Tensor,
    other: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: bool,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to x, residual (empty without one), and [weight, bias]; `y` is given for a ReLU after a sum."""
    images, height, width, members, channels = x.shape
    by_x = torch.empty_like(x)
    by_residual = torch.empty_like(x) if residual else x.new_empty(0)
    tile, pixels = _tile(height * width, channels, LARGE_BACKWARD), height * width
    blocks = triton.cdiv(pixels, tile["BLOCK"])
    splits = min(blocks, max(SPLITS, blocks // MOST_STEPS))
    parts = torch.empty(images, splits, 2, members, channels, device=x.device)
    # a member's weights may lie far from the next one's
    after, strides = (mean, inverse, weight, bias, by_x), (weight.stride(0), bias.stride(0))
    sizes = {"PIXELS": pixels, "CHANNELS": channels}
    _normalise_sums[members, images, splits](
        gradient, gradient if other is None else other, x, gradient if y is None else y,
        *after, by_residual, parts, members, *strides,
        RESIDUAL=residual, RELU=relu, SUMMED=y is not None, TWICE=other is not None,
        HELD=blocks == 1, STEPS=triton.cdiv(blocks, splits), **sizes, **tile,
    )  # fmt: skip
    if blocks > 1:
        # with a sum, the gradient before ReLU is there already
        passed, alike = (by_residual, True) if residual else (gradient, False)
        _normalise_apply[members, images, blocks](
            passed, passed if alike or other is None else other, x, *after, parts, members, *strides,
            RELU=relu and not alike, TWICE=other is not None and not alike, SPLITS=splits,
            **sizes, **tile,
        )  # fmt: skip
    by_affine = torch.empty(2, members, channels, device=x.device)
    _add_parts[(triton.cdiv(by_affine.numel(), COLUMNS_ADDED),)](
        parts, by_affine, images * splits, by_affine.numel(), ROWS=ROWS_ADDED, COLUMNS=COLUMNS_ADDED
    )
    return by_x, by_residual, by_affine


@triton.jit
def _add_parts(parts, total, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum over rows of some columns of [row, column]."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    added = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        added += tl.load(parts + row[:, None] * columns + column[None, :], inside, other=0.0)
    tl.store(total + column, tl.sum(added, 0), column < columns)


@triton.jit
def _passed(
    gradient,
    other,
    x,
    y,
    at,
    inside,
    mean,
    inverse,
    w,
    b,
    RELU: tl.constexpr,
    SUMMED: tl.constexpr,
    TWICE: tl.constexpr,
):
    """The gradient before the ReLU, and the normalised values, [pixel, channel]."""
    standard = (tl.load(x + at, inside, other=0.0).to(tl.float32) - mean) * inverse
    passed = tl.load(gradient + at, inside, other=0.0).to(tl.float32)
    if TWICE:
        passed += tl.load(other + at, inside, other=0.0).to(tl.float32)
    if RELU:
        if SUMMED:
            out = tl.load(y + at, inside, other=0.0).to(tl.float32)
        else:
            out = standard * w[None, :] + b[None, :]
        passed = tl.where(out > 0, passed, 0.0)
    return passed, standard


@triton.jit
def _normalise_sums(
    gradient,
    other,
    x,
    y,
    means,
    inverses,
    weight,
    bias,
    by_x,
    by_residual,
    parts,
    members,
    weight_stride,
    bias_stride,
    RESIDUAL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
    SUMMED: tl.constexpr,
    TWICE: tl.constexpr,
    HELD: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some pixels of one image of one member: their share of the affine gradient, `parts` [image, split, 2, member, channel].

    The residual's gradient too; where these are all pixels, that of x as well, while everything is in registers.
    """
    member, image, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channel = tl.arange(0, WIDE)
    known = channel < CHANNELS
    w = tl.load(weight + member * weight_stride + channel, known, other=0.0)
    b = tl.load(bias + member * bias_stride + channel, known, other=0.0)
    mean = tl.load(means + image * members + member)
    inverse = tl.load(inverses + image * members + member)
    by_weight = tl.zeros([BLOCK, WIDE], tl.float32)
    by_bias = tl.zeros([BLOCK, WIDE], tl.float32)
    for step in tl.static_range(STEPS):
        pixel = (split * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        inside = (pixel < PIXELS)[:, None] & known[None, :]
        at = (image.to(tl.int64) * PIXELS + pixel)[:, None] * members + member
        at = at * CHANNELS + channel[None, :]
        passed, standard = _passed(
            gradient, other, x, y, at, inside, mean, inverse, w, b, RELU, SUMMED, TWICE
        )
        by_weight += tl.where(inside, passed * standard, 0.0)
        by_bias += passed
        if RESIDUAL:
            tl.store(by_residual + at, passed, inside)
    weight_sum, bias_sum = tl.sum(by_weight, 0), tl.sum(by_bias, 0)
    own = parts + ((image * tl.num_programs(2) + split) * 2 * members + member) * CHANNELS + channel
    tl.store(own, weight_sum, known)
    tl.store(own + members * CHANNELS, bias_sum, known)
    if HELD:
        entries = PIXELS * CHANNELS
        shift, slope = tl.sum(bias_sum * w) / entries, tl.sum(weight_sum * w) / entries
        tl.store(by_x + at, (passed * w[None, :] - shift - standard * slope) * inverse, inside)


@triton.jit
def _normalise_apply(
    gradient,
    other,
    x,
    means,
    inverses,
    weight,
    bias,
    by_x,
    parts,
    members,
    weight_stride,
    bias_stride,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
    TWICE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of some pixels of one image of one member, from the sums over all, [image, split, 2, member, channel].

    Images come last first: what the sums read last is still near.
    """
    member, block = tl.program_id(0), tl.program_id(2)
    image = tl.num_programs(1) - 1 - tl.program_id(1)
    channel, pixel = tl.arange(0, WIDE), block * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    inside = (pixel < PIXELS)[:, None] & known[None, :]
    at = (image.to(tl.int64) * PIXELS + pixel)[:, None] * members + member
    at = at * CHANNELS + channel[None, :]
    w = tl.load(weight + member * weight_stride + channel, known, other=0.0)
    b = tl.load(bias + member * bias_stride + channel, known, other=0.0)
    mean = tl.load(means + image * members + member)
    inverse = tl.load(inverses + image * members + member)
    by_weight = tl.zeros([WIDE], tl.float32)
    by_bias = tl.zeros([WIDE], tl.float32)
    for split in tl.static_range(SPLITS):
        own = parts + ((image * SPLITS + split) * 2 * members + member) * CHANNELS + channel
        by_weight += tl.load(own, known, other=0.0)
        by_bias += tl.load(own + members * CHANNELS, known, other=0.0)
    entries = PIXELS * CHANNELS
    shift, slope = tl.sum(by_bias * w) / entries, tl.sum(by_weight * w) / entries
    passed, standard = _passed(
        gradient, other, x, x, at, inside, mean, inverse, w, b, RELU, SUMMED=False, TWICE=TWICE
    )
    tl.store(by_x + at, (passed * w[None, :] - shift - standard * slope) * inverse, inside)
