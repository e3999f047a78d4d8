"""The citation graphs Cora, CiteSeer and PubMed in the files and the split of Yang, Cohen and Salakhutdinov 2016 ("Planetoid").

Their first nodes are those of `allx`, of which the first are labelled for training; the test nodes come last, in the
order of `test.index`. A few of CiteSeer's places there have no paper: nodes without features, label or neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from symcore.data import pickles
from symcore.data.nodes import Nodes

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
"""How the names of the eight files end, in the order in which they are read."""
VALIDATION = 500
"""Nodes after the training nodes that the public split validates on."""


def read(contents: Iterable[bytes]) -> Nodes:
    """The graph with the public split: 20 nodes of each class to train, 500 to validate, 1,000 to test.

    Features are as published: words that a paper has or not, in PubMed their TF-IDF weights.

    Raises:
        pickle.UnpicklingError: if a file asks for more than arrays, sparse matrices and lists.
    """
    *pickled, index = contents
    x, y, tx, ty, allx, ally, neighbours = (
        pickles.load(part, pickles.GRAPHS, encoding="latin1") for part in pickled
    )
    tested = np.array(index.split(), dtype=np.int64)
    nodes = max(len(neighbours), int(tested.max()) + 1)
    features = np.zeros((nodes, x.shape[1]), dtype=np.float32)
    labels = np.zeros(nodes, dtype=np.int64)
    features[: allx.shape[0]], labels[: len(ally)] = allx.toarray(), ally.argmax(1)
    features[tested], labels[tested] = tx.toarray(), ty.argmax(1)
    binary = bool(np.isin(features, (0, 1)).all())
    pairs = [(node, other) for node, others in neighbours.items() for other in others]
    train = len(y)
    return Nodes(
        features=torch.from_numpy(features.astype(np.uint8) if binary else features),
        labels=torch.from_numpy(labels),
        edges=torch.tensor(pairs, dtype=torch.int64).T,
        splits={
            "train": torch.arange(train),
            "val": torch.arange(train, train + VALIDATION),
            "test": torch.from_numpy(np.sort(tested)),
        },
    )
