"""Node-labelled graphs in the files of the Open Graph Benchmark (Hu et al. 2020): gzipped tables without headings."""

from __future__ import annotations

import gzip
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from symcore.data.nodes import Nodes

FILES = (
    "raw/edge.csv.gz",
    "raw/node-feat.csv.gz",
    "raw/node-label.csv.gz",
    "split/time/train.csv.gz",
    "split/time/valid.csv.gz",
    "split/time/test.csv.gz",
)
"""Their names, in the order in which they are read; papers are split by the year in which they appeared."""


def read(contents: Iterable[bytes]) -> Nodes:
    """The graph, a row for each edge or node in the files, with its published split."""
    edges, features, labels, *splits = contents
    classes = _numbers(labels, np.int64)
    return Nodes(
        features=_numbers(features, np.float32).view(len(classes), -1),
        labels=classes,
        edges=_numbers(edges, np.int64).view(-1, 2).T,
        splits={
            name: _numbers(own, np.int64) for name, own in zip(("train", "val", "test"), splits, strict=True)
        },
    )


def _numbers(content: bytes, dtype: type[np.number]) -> Tensor:
    """All numbers of a table, row after row."""
    text = gzip.decompress(content).replace(b",", b" ")
    return torch.from_numpy(np.fromstring(text, dtype, sep=" "))
