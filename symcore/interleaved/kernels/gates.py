"""FiGLU of maps [image, row, column, member, channel]; the mixture is one product with F."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

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
