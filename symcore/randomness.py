"""One seed sequence feeds everything random: a stream is named by seed, purpose and index, never by its neighbours."""

from __future__ import annotations

import hashlib

import numpy as np


def _sequence(seed: int, purpose: str, index: tuple[int, ...]) -> np.random.SeedSequence:
    """Words of the seed sequence: the seed, a digest of the purpose (Python's `hash` is salted), the index."""
    digest = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
    return np.random.SeedSequence([seed, digest, *index])


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """The random stream for one purpose, say `stream(3, "shuffle", epoch)`.

    Raises:
        ValueError: if the seed or an index is negative.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, index)))


def torch_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit integer for `torch.manual_seed`, for code that draws from torch's own generator."""
    return int(_sequence(seed, purpose, index).generate_state(1, np.uint64)[0] >> np.uint64(1))
