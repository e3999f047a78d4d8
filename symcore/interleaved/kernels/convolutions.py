"""The convolutions of a population that cuDNN would take one member at a time.

Maps are [image, row, column, member, channel], filters [member, out, k, k, in]. Products of float32 maps are IEEE.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS_AT_ONCE = 128
"""Output pixels of one member that a program of a convolution computes."""


def _depth(channels_in: int, size: int) -> tuple[int, int]:
    """Filter entries in one product, and in all; a tap's channels are one product's, or all taps' if they are few."""
    entries = size * size * channels_in
    wide = triton.next_power_of_2(channels_in)
    block = channels_in if channels_in == wide and wide >= 16 else triton.next_power_of_2(entries)
    return max(16, min(64, block)), entries


def convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Each member's convolution; see `operations.convolve`."""
    images, height, width, members, channels_in = x.shape
    channels_out, size = weight.shape[1:3]
    rows, columns = -(-height // stride), -(-width // stride)
    y = x.new_empty(images, rows, columns, members, channels_out)
    block, entries = _depth(channels_in, size)
    _convolve[triton.cdiv(images * rows * columns, PIXELS_AT_ONCE), members](
        x,
        weight,
        y,
        images * rows * columns,
        members,
        height,
        width,
        rows,
        columns,
        IN=channels_in,
        OUT=channels_out,
        SIZE=size,
        STRIDE=stride,
        ENTRIES=entries,
        BLOCK=PIXELS_AT_ONCE,
        DEPTH=block,
        WIDE=max(16, triton.next_power_of_2(channels_out)),
        num_warps=4,
    )
    return y


@triton.jit
def _patches(
    x,
    pixel,
    entry,
    pixels,
    member,
    members,
    height,
    width,
    rows,
    columns,
    IN: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """The inputs that output pixels of one member meet at filter entries (tap and channel), [pixel, entry]; 0 outside."""
    row, column = pixel // columns % rows, pixel % columns
    image = (pixel // (rows * columns)).to(tl.int64)
    tap, channel = entry // IN, entry % IN
    from_row = row[:, None] * STRIDE + (tap // SIZE)[None, :] - SIZE // 2
    from_column = column[:, None] * STRIDE + (tap % SIZE)[None, :] - SIZE // 2
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    inside = inside & (entry < ENTRIES)[None, :] & (pixel < pixels)[:, None]
    at = (image[:, None] * height + from_row) * width + from_column
    return tl.load(x + (at * members + member) * IN + channel[None, :], inside, other=0.0)


@triton.jit
def _convolve(
    x,
    weight,
    y,
    pixels,
    members,
    height,
    width,
    rows,
    columns,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some output pixels of one member: [pixel, tap and channel] times [tap and channel, out]."""
    member = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    out = tl.arange(0, WIDE)
    total = tl.zeros([BLOCK, WIDE], tl.float32)
    for first in tl.static_range(0, ENTRIES, DEPTH):
        entry = first + tl.arange(0, DEPTH)
        values = _patches(
            x, pixel, entry, pixels, member, members, height, width, rows, columns, IN, SIZE, STRIDE, ENTRIES
        )
        filters = tl.load(
            weight + (member * OUT + out)[None, :] * ENTRIES + entry[:, None],
            (out < OUT)[None, :] & (entry < ENTRIES)[:, None],
            other=0.0,
        )
        total = tl.dot(values, filters, total, input_precision="ieee")
    to = (pixel.to(tl.int64)[:, None] * members + member) * OUT + out[None, :]
    tl.store(y + to, total, (pixel < pixels)[:, None] & (out < OUT)[None, :])


def convolve_by_input(gradient: Tensor, weight: Tensor, stride: int, height: int, width: int) -> Tensor:
    """The gradient with respect to a convolution's input of `height` rows and `width` columns."""
    images, rows, columns, members, channels_out = gradient.shape
    size, channels_in = weight.shape[2], weight.shape[4]
    by_x = gradient.new_empty(images, height, width, members, channels_in)
    pixels = images * (height // stride) * (width // stride)
    _convolve_by_input[triton.cdiv(pixels, PIXELS_AT_ONCE), stride * stride, members](
        gradient,
        weight,
        by_x,
        pixels,
        members,
        height,
        width,
        rows,
        columns,
        IN=channels_in,
        OUT=channels_out,
        SIZE=size,
        STRIDE=stride,
        BLOCK=PIXELS_AT_ONCE,
        WIDE_IN=max(16, triton.next_power_of_2(channels_in)),
        WIDE_OUT=max(16, triton.next_power_of_2(channels_out)),
        num_warps=4,
    )
    return by_x


@triton.jit
def _convolve_by_input(
    gradient,
    weight,
    by_x,
    pixels,
    members,
    height,
    width,
    rows,
    columns,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE_IN: tl.constexpr,
    WIDE_OUT: tl.constexpr,
):
    """Input pixels of one member whose row and column leave one remainder by the stride, so that the same taps reach them."""
    member, remainder = tl.program_id(2), tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel, out = tl.arange(0, WIDE_IN), tl.arange(0, WIDE_OUT)
    high, wide = height // STRIDE, width // STRIDE
    row = pixel // wide % high * STRIDE + remainder // STRIDE
    column = pixel % wide * STRIDE + remainder % STRIDE
    image = (pixel // (high * wide)).to(tl.int64)
    total = tl.zeros([BLOCK, WIDE_IN], tl.float32)
    for tap in tl.static_range(0, SIZE * SIZE):
        up = remainder // STRIDE + SIZE // 2 - tap // SIZE
        left = remainder % STRIDE + SIZE // 2 - tap % SIZE
        if (up % STRIDE == 0) & (left % STRIDE == 0):
            to_row = (row + SIZE // 2 - tap // SIZE) // STRIDE
            to_column = (column + SIZE // 2 - tap % SIZE) // STRIDE
            inside = (row + SIZE // 2 >= tap // SIZE) & (to_row < rows) & (pixel < pixels)
            inside = inside & (column + SIZE // 2 >= tap % SIZE) & (to_column < columns)
            at = (image * rows + to_row) * columns + to_column
            values = tl.load(
                gradient + (at * members + member)[:, None] * OUT + out[None, :],
                inside[:, None] & (out < OUT)[None, :],
                other=0.0,
            )
            filters = tl.load(
                weight + ((member * OUT + out)[:, None] * SIZE * SIZE + tap) * IN + channel[None, :],
                (out < OUT)[:, None] & (channel < IN)[None, :],
                other=0.0,
            )
            total = tl.dot(values, filters, total, input_precision="ieee")
    at = ((image * height + row) * width + column) * members + member
    tl.store(
        by_x + at[:, None] * IN + channel[None, :], total, (pixel < pixels)[:, None] & (channel < IN)[None, :]
    )


PIXELS_SUMMED = 4_096
"""Output pixels whose products a program adds up; the parts are then added in one order, so that a run repeats."""


def convolve_by_weight(gradient: Tensor, x: Tensor, size: int, stride: int) -> Tensor:
    """The gradient with respect to a convolution's filters, float32 [member, out, k, k, in]."""
    images, height, width, members, channels_in = x.shape
    rows, columns, channels_out = gradient.shape[1], gradient.shape[2], gradient.shape[4]
    pixels = images * rows * columns
    block, entries = _depth(channels_in, size)
    splits = triton.cdiv(pixels, PIXELS_SUMMED)
    parts = torch.empty(splits, members, channels_out, size, size, channels_in, device=x.device)
    _convolve_by_weight[triton.cdiv(entries, block), splits, members](
        gradient,
        x,
        parts,
        pixels,
        members,
        height,
        width,
        rows,
        columns,
        IN=channels_in,
        OUT=channels_out,
        SIZE=size,
        STRIDE=stride,
        ENTRIES=entries,
        SUMMED=PIXELS_SUMMED,
        BLOCK=64,
        DEPTH=block,
        WIDE=max(16, triton.next_power_of_2(channels_out)),
        num_warps=4,
    )
    return parts.sum(0)


@triton.jit
def _convolve_by_weight(
    gradient,
    x,
    parts,
    pixels,
    members,
    height,
    width,
    rows,
    columns,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    SIZE: tl.constexpr,
    STRIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUMMED: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some filter entries of one member from some output pixels: [out, pixel] times [pixel, tap and channel]."""
    member, split = tl.program_id(2), tl.program_id(1)
    entry = tl.program_id(0) * DEPTH + tl.arange(0, DEPTH)
    out = tl.arange(0, WIDE)
    total = tl.zeros([WIDE, DEPTH], tl.float32)
    for first in range(0, SUMMED, BLOCK):
        pixel = split * SUMMED + first + tl.arange(0, BLOCK)
        values = _patches(
            x, pixel, entry, pixels, member, members, height, width, rows, columns, IN, SIZE, STRIDE, ENTRIES
        )
        passed = tl.load(
            gradient + (pixel.to(tl.int64)[:, None] * members + member) * OUT + out[None, :],
            (pixel < pixels)[:, None] & (out < OUT)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(passed), values, total, input_precision="ieee")
    to = ((split * tl.num_programs(2) + member) * OUT + out)[:, None] * ENTRIES + entry[None, :]
    tl.store(parts + to, total, (out < OUT)[:, None] & (entry < ENTRIES)[None, :])
