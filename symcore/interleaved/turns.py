"""Members of a population that compute one after another, and what they compute put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def side_by_side(function: Callable[..., Result], turns: Sequence[Sequence[Tensor]]) -> list[Result]:
    """A function's result for each turn's tensors.

    On a GPU every other turn is on a second stream: a network's large kernels leave processors idle at their end, and so
    do its small ones, where another network's find room. The maps of two networks are then in memory, not of one.
    """
    if len(turns) == 1 or not turns[0][0].is_cuda:
        return [function(*given) for given in turns]
    first = torch.cuda.current_stream()
    second = _second_stream(first.device)
    second.wait_stream(first)
    results = []
    for turn, given in enumerate(turns):
        with torch.cuda.stream(second if turn % 2 else first):
            results.append(function(*given))
    first.wait_stream(second)
    return results


@cache
def _second_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def joined(turns: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Results [member, ...] of all members from those of each turn."""
    if len(turns) == 1:
        return list(turns[0])
    return [torch.cat(parts) for parts in zip(*turns, strict=True)]
