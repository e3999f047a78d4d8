"""Data sets that are one graph, in the form in which every loader gives them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

OUTSIDE = -1
"""The label of a node that does not count in a split."""


@dataclass(frozen=True)
class Nodes:
    """A graph's nodes, what is known of them, and which of them count in which split."""

    features: Tensor
    """uint8 where they are words that a node has or not, else float32, [node, feature]."""
    labels: Tensor
    """int64 [node]; what stands at nodes without a label is never read."""
    edges: Tensor
    """As published, int64 [2, edge]: directions, doubles and loops do not matter."""
    splits: dict[str, Tensor]
    """The nodes of "train", "val" and "test", int64 [n]."""

    def labels_of(self, split: str) -> Tensor:
        """The labels of a split's nodes, and `OUTSIDE` at all others, int64 [node]."""
        found = self.labels.new_full(self.labels.shape, OUTSIDE)
        own = self.splits[split]
        found[own] = self.labels[own]
        return found
