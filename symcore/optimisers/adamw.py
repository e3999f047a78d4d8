"""AdamW on a whole population (Loshchilov and Hutter 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from symcore.optimisers import blocks

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Block(blocks.Block):
    """Parameters and their moments; weight decay is decoupled, per unit of learning rate.

    An entry that D fixes has an infinite second moment, which makes its steps 0, and keep 1: nothing moves it.
    """

    first: Tensor
    """[member, entry]"""
    second: Tensor
    """[member, entry]"""
    keep: Tensor
    """What a step's decay leaves of each weight, [member or 1, entry or 1]."""
    pull: Tensor | None
    """What a step's decay gives back to each weight, [member or 1, entry]: (1 - keep) * offset."""

    def memory(self) -> dict[str, Tensor]:
        """Both moments."""
        return {"first": self.first, "second": self.second}

    def set_rate(self, learning_rate: Tensor) -> None:
        """Changes the learning rates, and what decay keeps, in place."""
        super().set_rate(learning_rate)
        self.keep.copy_(_kept(self.rate, self.decay, self.trainable))
        if self.pull is not None and self.offset is not None:
            self.pull.copy_((1 - self.keep) * self.offset)

    def update(self, gradient: Tensor, steps: Tensor) -> None:
        """One step in place; the arithmetic is that of `torch.optim.AdamW`."""
        gradient = gradient.to(self.weights.dtype)
        first_correction = -torch.expm1(steps * math.log(BETA1))  # 1 - BETA1**steps would cancel
        second_correction = (-torch.expm1(steps * math.log(BETA2))).sqrt()
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        denominator = (self.second.sqrt() / second_correction).add_(EPSILON)
        step = (self.first / denominator).mul_(self.rate / first_correction)
        self.weights.mul_(self.keep)
        if self.pull is not None:
            self.weights.add_(self.pull)
        self.weights.sub_(step)


def begin(start: blocks.Start) -> Block:
    """A block before the first update."""
    first, second = torch.zeros_like(start.weights), torch.zeros_like(start.weights)
    if start.trainable is not None:
        second.masked_fill_(~start.trainable, torch.inf)
    keep = _kept(start.rate, start.decay, start.trainable)
    pull = None if start.offset is None else (1 - keep) * start.offset
    return Block(**vars(start), first=first, second=second, keep=keep, pull=pull)


def _kept(rate: Tensor, decay: Tensor, trainable: Tensor | None) -> Tensor:
    kept = 1 - rate * decay
    return kept if trainable is None else torch.where(trainable, kept, 1)
