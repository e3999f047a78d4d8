"""Random numbers within traced and captured steps: a pure function of a member's key and a number's place.

A generator's state would be shared by all members, so that a member's numbers would depend on its neighbours, and a
captured step could not be resumed. The numbers here are hashes of counters (Salmon et al. 2011) by pcg3d (Jarzynski and
Olano 2020, "Hash Functions for GPU Rendering"), whose 32-bit arithmetic a compiler fuses with what uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from symcore.randomness import torch_seed

Draw = Callable[[Sequence[int]], Tensor]
"""Gives the next random numbers, float32 [*shape]."""
Numbers = Callable[[Tensor, Sequence[int]], Tensor]
"""Random numbers of one kind, float32 [*shape], of one key [2]: `normal` or `uniform`."""
MULTIPLIER, INCREMENT = 1_664_525, 1_013_904_223
_WORD = 1 << 32
_FINE = 2.0**-24


def keys(seeds: Sequence[int], purpose: str, *index: int) -> Tensor:
    """A key of 64 bits for each seed, int32 [seed, 2]; two purposes or indices give keys that have nothing in common."""
    drawn = [torch_seed(seed, purpose, *index) for seed in seeds]
    return torch.tensor([[_signed(one % _WORD), _signed(one // _WORD)] for one in drawn], dtype=torch.int32)


def _signed(word: int) -> int:
    """A word of 32 bits as int32 has it."""
    return word - _WORD if word >= _WORD // 2 else word


def _shifted(word: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; int32 has only the arithmetic one."""
    return (word >> bits) & ((1 << (32 - bits)) - 1)


def _mixed(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pcg3d: three words, int32, in which every bit of the result depends on all of the input."""
    x, y, z = (word * MULTIPLIER + INCREMENT for word in (x, y, z))
    x = x + y * z
    y = y + z * x
    z = z + x * y
    x, y, z = (word ^ _shifted(word, 16) for word in (x, y, z))
    x = x + y * z
    y = y + z * x
    z = z + x * y
    return x, y, z


def derived(key: Tensor, *index: Tensor | int) -> Tensor:
    """Another key of a key [..., 2], for each place in some order: a step, a layer."""
    low, high = key.unbind(-1)
    for place in index:
        at = place.to(torch.int32) if isinstance(place, Tensor) else torch.full_like(low, place)
        low, high, _ = _mixed(low, high, at)
    return torch.stack([low, high], dim=-1)


def _words(key: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    """Two independent words for each number, int32 [numbers], of one key [2]."""
    at = torch.arange(numbers, dtype=torch.int32, device=key.device)
    # vectors of one: of scalars a compiler rounds the constants to float32
    first, second, _ = _mixed(at, key[:1], key[1:])
    return first, second


def _unit(word: Tensor) -> Tensor:
    """Uniform in (0, 1], float32, on a grid of 2^-24."""
    return (_shifted(word, 8) + 1).float() * _FINE


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform numbers in (0, 1], float32 [*shape], of one key [2]."""
    first, _ = _words(key, math.prod(shape))
    return _unit(first).view(*shape)


def normal(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, float32 [*shape], of one key [2], in pairs from two uniform ones (Box and Muller 1958)."""
    numbers = math.prod(shape)
    half = -(-numbers // 2)
    first, second = _words(key, half)
    radius, angle = (-2 * _unit(first).log()).sqrt(), 2 * math.pi * _unit(second)
    pair = torch.cat([radius * angle.cos(), radius * angle.sin()])
    return pair[:numbers].view(*shape)


class Reel:
    """Numbers drawn at once and given out piece by piece: many small draws are as many hashes in a program."""

    def __init__(self, key: Tensor, numbers: int, kind: Numbers = normal) -> None:
        """Draws so many numbers of one key [2]."""
        self._left = kind(key, (numbers,))

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The next numbers, float32 [*shape].

        Raises:
            RuntimeError: if too few are left.
        """
        taken, self._left = self._left.tensor_split([math.prod(shape)])
        return taken.view(*shape)


class Tally:
    """Counts how many numbers a computation takes, and gives it zeros."""

    def __init__(self, device: torch.device) -> None:
        """Has counted none yet."""
        self.numbers = 0
        self._device = device

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Zeros, [*shape]."""
        self.numbers += math.prod(shape)
        return torch.zeros(*shape, device=self._device)
