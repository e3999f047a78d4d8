"""What keeps the state of long work, so that after a stop it goes on from there, bit for bit on a CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

Tensors = Mapping[str, Tensor]


class StoppedError(Exception):
    """Work was asked to stop and did, after saving what it had."""


def write_tensors(path: Path, tensors: Tensors, notes: Mapping[str, str]) -> None:
    """Replaces a safetensors file by one with notes in its head; a crash leaves the old one whole."""
    partial = path.with_suffix(".partial")
    save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, partial, metadata=dict(notes))
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(path)


class Keeper:
    """Keeps nothing: work that was stopped begins again. Those that keep something override its methods."""

    def kept(self) -> dict[str, Tensor]:
        """The state to go on from, on the CPU; empty where the work has to begin."""
        return {}

    def keep(self, state: Tensors) -> None:
        """Keeps a state in place of the last one."""

    def due(self) -> bool:
        """Whether it is time to keep the state again."""
        return False

    def part(self, name: str) -> Keeper:
        """What keeps the state of one part of the work, beside those of others."""
        del name
        return self

    @contextmanager
    def at(self, state: Callable[[], Tensors]) -> Iterator[None]:
        """Where work stands: the state is kept if that is due, and if what is inside stops, which must leave it as it is."""
        if self.due():
            self.keep(state())
        try:
            yield
        except StoppedError:
            self.keep(state())
            raise
