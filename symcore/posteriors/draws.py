"""Posteriors that are known by draws alone: passing states of a chain, networks of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from symcore.asymmetry import Parameters
from symcore.population import Population


@dataclass(frozen=True)
class StoredDraws:
    """So many draws for each member, all kept."""

    population: Population
    """The networks, at weights that stand for the draws: the last ones, say."""
    weights: Mapping[str, Tensor]
    """Effective weights, [draw, member, *shape]."""

    def __len__(self) -> int:
        """Draws."""
        return len(next(iter(self.weights.values())))

    def draw(self, sample: int) -> Parameters:
        """Effective weights of every member, [member, *shape].

        Raises:
            IndexError: if there are not so many.
        """
        if not 0 <= sample < len(self):
            msg = f"sample: {sample} of {len(self)} draws; accepted: 0 to {len(self) - 1}"
            raise IndexError(msg)
        return {name: drawn[sample] for name, drawn in self.weights.items()}
