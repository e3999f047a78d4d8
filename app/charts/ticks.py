"""Scales with fixed ends, and where ticks lie on a logarithmic one."""

from __future__ import annotations

import math

import altair as alt

ENOUGH = 3
"""Powers of ten that say enough; where an axis holds fewer, other round numbers stand between them."""
BETWEEN = (1, 2, 5)


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; where they are few 2 and 5 times each too, and the ends where those are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    whole = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(whole) >= ENOUGH:
        return whole
    found = [step * 10.0**power for power in powers for step in BETWEEN]
    return [value for value in found if low <= value <= high] or [low, high]


def numeric(low: float, high: float, *, log: bool) -> alt.Scale:
    """A scale from `low` to `high`; on a logarithmic one what lies beyond stands at its ends."""
    if log:
        return alt.Scale(domain=[low, high], nice=False, type="log", clamp=True)
    return alt.Scale(domain=[low, high], nice=False, zero=False, type="linear")
