"""The GPU kernels behind `operations`: normalisation in one visit to memory, and the convolutions that cuDNN lacks.

Maps are [image, row, column, member, channel], filters [member, out, k, k, in]. Only a GPU's own module may import this
file, for Triton comes with it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

VALUES_HELD, VALUES_AT_ONCE = 16_384, 8_192
"""A program keeps an image's map of so many values in registers; of a larger one so many at once, and all is read twice."""


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
        PIXELS=height * width,
        CHANNELS=channels,
        RESIDUAL=residual is not None,
        RELU=relu,
        **_tile(height * width, channels),
    )
    return y, mean, inverse


def _tile(pixels: int, channels: int) -> dict[str, int]:
    """How many pixels of one image a program takes at once, and with how many warps."""
    wide, block = triton.next_power_of_2(channels), triton.next_power_of_2(pixels)
    if wide * block > VALUES_HELD:
        block = max(1, VALUES_AT_ONCE // wide)
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
    w = tl.load(weight + member * CHANNELS + channel, known, other=0.0)
    b = tl.load(bias + member * CHANNELS + channel, known, other=0.0)
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
    tile = _tile(height * width, channels)
    blocks = triton.cdiv(height * width, tile["BLOCK"])
    parts = torch.empty(images, blocks, 2, members, channels, device=x.device)
    given = gradient, gradient if other is None else other, x, gradient if y is None else y
    sizes = {"PIXELS": height * width, "CHANNELS": channels}
    traits = {"RELU": relu, "SUMMED": y is not None, "TWICE": other is not None, "RESIDUAL": residual}
    _normalise_sums[members, images, blocks](
        *given, mean, inverse, weight, bias, by_x, by_residual, parts, members,
        HELD=blocks == 1, **sizes, **traits, **tile,
    )  # fmt: skip
    if blocks > 1:
        parts = parts.sum(1)
        _normalise_apply[members, images, blocks](
            *given, mean, inverse, weight, bias, by_x, by_residual, parts, members,
            **sizes, **traits, **tile,
        )  # fmt: skip
    return by_x, by_residual, parts.view(images, 2, members, channels).sum(0)


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
    RESIDUAL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
    SUMMED: tl.constexpr,
    TWICE: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some pixels of one image of one member: their share of the affine gradient, `parts` [image, block, 2, member, channel].

    Where these are all pixels, the other gradients too, while everything is in registers.
    """
    member, image, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channel, pixel = tl.arange(0, WIDE), block * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    inside = (pixel < PIXELS)[:, None] & known[None, :]
    at = (image.to(tl.int64) * PIXELS + pixel)[:, None] * members + member
    at = at * CHANNELS + channel[None, :]
    w = tl.load(weight + member * CHANNELS + channel, known, other=0.0)
    b = tl.load(bias + member * CHANNELS + channel, known, other=0.0)
    mean = tl.load(means + image * members + member)
    inverse = tl.load(inverses + image * members + member)
    passed, standard = _passed(gradient, other, x, y, at, inside, mean, inverse, w, b, RELU, SUMMED, TWICE)
    by_weight, by_bias = tl.sum(tl.where(inside, passed * standard, 0.0), 0), tl.sum(passed, 0)
    own = parts + ((image * tl.num_programs(2) + block) * 2 * members + member) * CHANNELS + channel
    tl.store(own, by_weight, known)
    tl.store(own + members * CHANNELS, by_bias, known)
    if HELD:
        entries = PIXELS * CHANNELS
        shift, slope = tl.sum(by_bias * w) / entries, tl.sum(by_weight * w) / entries
        tl.store(by_x + at, (passed * w[None, :] - shift - standard * slope) * inverse, inside)
        if RESIDUAL:
            tl.store(by_residual + at, passed, inside)


@triton.jit
def _normalise_apply(
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
    sums,
    members,
    RESIDUAL: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    RELU: tl.constexpr,
    SUMMED: tl.constexpr,
    TWICE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradients of some pixels of one image of one member, from the sums over all, [image, 2, member, channel]."""
    member, image, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channel, pixel = tl.arange(0, WIDE), block * BLOCK + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    inside = (pixel < PIXELS)[:, None] & known[None, :]
    at = (image.to(tl.int64) * PIXELS + pixel)[:, None] * members + member
    at = at * CHANNELS + channel[None, :]
    w = tl.load(weight + member * CHANNELS + channel, known, other=0.0)
    b = tl.load(bias + member * CHANNELS + channel, known, other=0.0)
    mean = tl.load(means + image * members + member)
    inverse = tl.load(inverses + image * members + member)
    own = sums + (image * 2 * members + member) * CHANNELS + channel
    by_weight = tl.load(own, known, other=0.0)
    by_bias = tl.load(own + members * CHANNELS, known, other=0.0)
    entries = PIXELS * CHANNELS
    shift, slope = tl.sum(by_bias * w) / entries, tl.sum(by_weight * w) / entries
    passed, standard = _passed(gradient, other, x, y, at, inside, mean, inverse, w, b, RELU, SUMMED, TWICE)
    tl.store(by_x + at, (passed * w[None, :] - shift - standard * slope) * inverse, inside)
    if RESIDUAL:
        tl.store(by_residual + at, passed, inside)


ROWS_AT_ONCE = 128
"""Pixels of members that a program of a gate takes."""


def gate(x: Tensor, mixing: Tensor) -> Tensor:
    """See `operations.gate`."""
    y = torch.empty_like(x)
    channels = x.shape[-1]
    rows = x.numel() // channels
    _gate[(triton.cdiv(rows, ROWS_AT_ONCE),)](
        x,
        mixing,
        y,
        rows,
        CHANNELS=channels,
        BLOCK=ROWS_AT_ONCE,
        WIDE=max(16, triton.next_power_of_2(channels)),
    )
    return y


def gate_backward(gradient: Tensor, other: Tensor | None, x: Tensor, mixing: Tensor) -> Tensor:
    """The gradient with respect to x, of the sum of two where the result was used twice."""
    by_x = torch.empty_like(x)
    channels = x.shape[-1]
    rows = x.numel() // channels
    _gate_backward[(triton.cdiv(rows, ROWS_AT_ONCE),)](
        gradient,
        gradient if other is None else other,
        x,
        mixing,
        by_x,
        rows,
        CHANNELS=channels,
        TWICE=other is not None,
        BLOCK=ROWS_AT_ONCE,
        WIDE=max(16, triton.next_power_of_2(channels)),
    )
    return by_x


@triton.jit
def _gate(x, mixing, y, rows, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Some rows [row, channel]; the mixture is one product with F."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (channel < CHANNELS)[None, :]
    square = (channel < CHANNELS)[:, None] & (channel < CHANNELS)[None, :]
    at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    value = tl.load(x + at, inside, other=0.0)
    turned = tl.load(mixing + channel[None, :] * CHANNELS + channel[:, None], square, other=0.0)
    opened = tl.sigmoid(tl.dot(value, turned))
    tl.store(y + at, opened * value.to(tl.float32), inside)


@triton.jit
def _gate_backward(
    gradient,
    other,
    x,
    mixing,
    by_x,
    rows,
    CHANNELS: tl.constexpr,
    TWICE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some rows [row, channel]; the gate is computed again, which costs less than reading it."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (channel < CHANNELS)[None, :]
    square = (channel < CHANNELS)[:, None] & (channel < CHANNELS)[None, :]
    at = row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    value = tl.load(x + at, inside, other=0.0)
    passed = tl.load(gradient + at, inside, other=0.0).to(tl.float32)
    if TWICE:
        passed += tl.load(other + at, inside, other=0.0).to(tl.float32)
    straight = tl.load(mixing + channel[:, None] * CHANNELS + channel[None, :], square, other=0.0)
    opened = tl.sigmoid(tl.dot(value, tl.trans(straight)))
    through = (passed * value.to(tl.float32) * opened * (1 - opened)).to(value.dtype)
    tl.store(by_x + at, passed * opened + tl.dot(through, straight), inside)


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
    row, column = pixel // columns % rows, pixel % columns
    image = (pixel // (rows * columns)).to(tl.int64)
    total = tl.zeros([BLOCK, WIDE], tl.float32)
    for first in tl.static_range(0, ENTRIES, DEPTH):
        entry = first + tl.arange(0, DEPTH)
        tap, channel = entry // IN, entry % IN
        from_row = row[:, None] * STRIDE + (tap // SIZE)[None, :] - SIZE // 2
        from_column = column[:, None] * STRIDE + (tap % SIZE)[None, :] - SIZE // 2
        inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
        inside = inside & (entry < ENTRIES)[None, :] & (pixel < pixels)[:, None]
        at = (image[:, None] * height + from_row) * width + from_column
        values = tl.load(x + (at * members + member) * IN + channel[None, :], inside, other=0.0)
        filters = tl.load(
            weight + (member * OUT + out)[None, :] * ENTRIES + entry[:, None],
            (out < OUT)[None, :] & (entry < ENTRIES)[:, None],
            other=0.0,
        )
        total = tl.dot(values, filters, total)
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
            total = tl.dot(values, filters, total)
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
    tap, channel, out = entry // IN, entry % IN, tl.arange(0, WIDE)
    total = tl.zeros([WIDE, DEPTH], tl.float32)
    for first in range(0, SUMMED, BLOCK):
        pixel = split * SUMMED + first + tl.arange(0, BLOCK)
        row, column = pixel // columns % rows, pixel % columns
        image = (pixel // (rows * columns)).to(tl.int64)
        from_row = row[:, None] * STRIDE + (tap // SIZE)[None, :] - SIZE // 2
        from_column = column[:, None] * STRIDE + (tap % SIZE)[None, :] - SIZE // 2
        inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
        inside = inside & (entry < ENTRIES)[None, :] & (pixel < pixels)[:, None]
        at = (image[:, None] * height + from_row) * width + from_column
        values = tl.load(x + (at * members + member) * IN + channel[None, :], inside, other=0.0)
        passed = tl.load(
            gradient + (pixel.to(tl.int64)[:, None] * members + member) * OUT + out[None, :],
            (pixel < pixels)[:, None] & (out < OUT)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(passed), values, total)
    to = ((split * tl.num_programs(2) + member) * OUT + out)[:, None] * ENTRIES + entry[None, :]
    tl.store(parts + to, total, (out < OUT)[:, None] & (entry < ENTRIES)[None, :])
