"""FiGLU of maps [image, row, column, member, channel].

Of few channels one kernel mixes and gates. Of many the product with F is the library's, and what lies around it is a
kernel each way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS_AT_ONCE = 128
"""Pixels of members that a program of a gate takes."""


MOST_CHANNELS = 64
"""Channels whose F a program holds."""
VALUES_AT_ONCE = 2_048
"""Values that a program gates where they are mixed already."""


def gate(x: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """See `operations.gate`; also the mixture, if it was made apart."""
    channels, y = x.shape[-1], torch.empty_like(x)
    if channels > MOST_CHANNELS:
        mixed = x @ mixing.T
        _open[(triton.cdiv(x.numel(), VALUES_AT_ONCE),)](x, mixed, y, x.numel(), BLOCK=VALUES_AT_ONCE)
        return y, mixed
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
    return y, x.new_empty(0)


def gate_backward(gradient: Tensor, other: Tensor | None, x: Tensor, mixed: Tensor, mixing: Tensor) -> Tensor:
    """The gradient with respect to x, of the sum of two where the result was used twice."""
    channels, by_x = x.shape[-1], torch.empty_like(x)
    also, twice = gradient if other is None else other, other is not None
    if channels > MOST_CHANNELS:
        through = torch.empty_like(x)
        _open_backward[(triton.cdiv(x.numel(), VALUES_AT_ONCE),)](
            gradient, also, x, mixed, by_x, through, x.numel(), TWICE=twice, BLOCK=VALUES_AT_ONCE
        )
        by_x.view(-1, channels).addmm_(through.view(-1, channels), mixing)
        return by_x
    rows = x.numel() // channels
    _gate_backward[(triton.cdiv(rows, ROWS_AT_ONCE),)](
        gradient,
        also,
        x,
        mixing,
        by_x,
        rows,
        CHANNELS=channels,
        TWICE=twice,
        BLOCK=ROWS_AT_ONCE,
        WIDE=max(16, triton.next_power_of_2(channels)),
    )
    return by_x


@triton.jit
def _open(x, mixed, y, values, BLOCK: tl.constexpr):
    """Some values, where the mixture is there."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < values).to(tl.float32)
    opened = tl.sigmoid(tl.load(mixed + at, at < values).to(tl.float32))
    tl.store(y + at, opened * value, at < values)


@triton.jit
def _open_backward(
    gradient, other, x, mixed, by_x, through, values, TWICE: tl.constexpr, BLOCK: tl.constexpr
):
    """Of some values the gradient past the gate, and through the gate before the product with F."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < values
    value = tl.load(x + at, inside).to(tl.float32)
    passed = tl.load(gradient + at, inside).to(tl.float32)
    if TWICE:
        passed += tl.load(other + at, inside).to(tl.float32)
    opened = tl.sigmoid(tl.load(mixed + at, inside).to(tl.float32))
    tl.store(by_x + at, passed * opened, inside)
    tl.store(through + at, passed * value * opened * (1 - opened), inside)


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
    opened = tl.sigmoid(tl.dot(value, turned, input_precision="ieee"))
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
    opened = tl.sigmoid(tl.dot(value, tl.trans(straight), input_precision="ieee"))
    through = (passed * value.to(tl.float32) * opened * (1 - opened)).to(value.dtype)
    tl.store(by_x + at, passed * opened + tl.dot(through, straight, input_precision="ieee"), inside)
