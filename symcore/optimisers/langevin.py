"""Langevin dynamics with friction on a whole population (Chen, Fox and Guestrin 2014; Welling and Teh 2011 without momentum)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap

from symcore.optimisers import blocks
from symcore.posteriors import noise


@dataclass(frozen=True)
class Block(blocks.Block):
    """Parameters that roll in a potential, are slowed down and kicked about; decay is part of the gradient.

    With u a velocity per root of the learning rate l, g a gradient and xi standard normal, a step is

        u <- momentum * u - sqrt(l) * (g + decay * W) + sqrt(2 * (1 - momentum) * heat) * xi,    weights <- weights + sqrt(l) * u.

    In these units a change of l leaves velocities as they should be. Without momentum u is only what the step adds.
    """

    velocity: Tensor
    """u, [member, entry]"""
    free: Tensor
    """What moves: D, and nothing between parameters, bool [member or 1, entry]."""
    keys: Tensor
    """Of each member's noise in this block, int32 [member, 2]."""
    momentum: float
    """What friction leaves of a velocity."""
    heat: float
    """Variance of a velocity at rest in the potential: as small steps have it, weights have density exp(-potential / heat)."""

    def memory(self) -> dict[str, Tensor]:
        """The velocities."""
        return {"velocity": self.velocity}

    def update(self, gradient: Tensor, steps: Tensor) -> None:
        """One step in place; its noise depends on a member's key and on `steps` alone."""
        root, raw = self.rate.sqrt(), self.weights if self.offset is None else self.weights - self.offset
        slope = gradient.to(self.weights.dtype) + self.decay * raw
        kick = (2 * (1 - self.momentum) * self.heat) ** 0.5 * self._normal(steps)
        self.velocity.mul_(self.momentum).add_(torch.where(self.free, kick - root * slope, 0))
        self.weights.add_(root * self.velocity)

    def _normal(self, steps: Tensor) -> Tensor:
        """Standard normal numbers, [member, entry]."""
        entries, keys = self.weights.shape[1:], noise.derived(self.keys, steps.expand(len(self.keys)))
        drawn: Tensor = vmap(lambda key: noise.normal(key, entries))(keys)
        return drawn


def begin(start: blocks.Start, decay: dict[str, float], keys: Tensor, momentum: float, heat: float) -> Block:
    """A block at rest, with a decay for each parameter in place of the start's."""
    shapes, free, weights = start.layout.shapes, start.trainable, start.weights
    spread = {name: weights.new_full((1, *shape), decay[name]) for name, shape in shapes.items()}
    start = replace(start, decay=start.layout.flatten(spread))
    if free is None:
        every = {name: weights.new_ones((1, *shape), dtype=torch.bool) for name, shape in shapes.items()}
        free = start.layout.flatten(every)
    velocity = torch.zeros_like(weights)
    return Block(**vars(start), velocity=velocity, free=free, keys=keys, momentum=momentum, heat=heat)
