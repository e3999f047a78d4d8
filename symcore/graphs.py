"""Training steps on a GPU: each step compiled to a few dozen kernels, captured once and replayed as a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

WARM_UPS = 3
NO_LIMIT = 1 << 20
"""Every trainer compiles the same Python function anew, which the compiler would take for a mistake."""


class Steps(Protocol):
    """What can be captured: steps that change nothing but the tensors of `state`, and `cursor`."""

    cursor: Tensor

    def step_of(self, size: int) -> Callable[[], None]:
        """A step on the next `size` images."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step changes but the cursor."""


class GraphedSteps:
    """Replays a step of each minibatch size; a launch waits for no Python."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, size: int) -> None:
        """One step on the next `size` images of every member."""
        if size not in self._graphs:
            step = torch.compile(self._steps.step_of(size), fullgraph=True, dynamic=False)
            self._graphs[size] = self._capture(step)
        self._graphs[size].replay()

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Captures a step; the warm-up steps that compilation and capture need are undone."""
        steps = self._steps
        state = [*steps.state().values(), steps.cursor]
        before = [t.clone() for t in state]
        steps.cursor.zero_()
        with torch.no_grad(), torch.cuda.device(steps.cursor.device), _quiet_compiler():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    step()
                    steps.cursor.zero_()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        return graph


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Lets a step compile as often as asked, without advice on a precision that was chosen on purpose."""
    with warnings.catch_warnings(), torch._dynamo.config.patch(recompile_limit=NO_LIMIT):  # noqa: SLF001
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        yield
