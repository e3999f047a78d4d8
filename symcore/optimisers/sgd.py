"""Stochastic gradient descent with momentum on a whole population (Polyak 1964, as `torch.optim.SGD` has it)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from symcore.optimisers import blocks


@dataclass(frozen=True)
class Block(blocks.Block):
    """Parameters and their velocities; weight decay is part of the gradient.

    An entry that D fixes has velocity 0.
    """

    velocity: Tensor
    """[member, entry]"""
    momentum: float
    """What a step leaves of the velocity."""

    def memory(self) -> dict[str, Tensor]:
        """The velocities."""
        return {"velocity": self.velocity}

    def update(self, gradient: Tensor, steps: Tensor) -> None:
        """One step in place; the arithmetic is that of `torch.optim.SGD` without dampening."""
        del steps  # no step is corrected for how many there were
        decaying = self.weights if self.offset is None else self.weights - self.offset
        gradient = gradient.to(self.weights.dtype) + self.decay * decaying
        if self.trainable is not None:
            gradient = torch.where(self.trainable, gradient, 0)
        self.velocity.mul_(self.momentum).add_(gradient)
        self.weights.sub_(self.rate * self.velocity)


def begin(start: blocks.Start, momentum: float) -> Block:
    """A block at rest."""
    return Block(**vars(start), velocity=torch.zeros_like(start.weights), momentum=momentum)
