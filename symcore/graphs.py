"""Training steps on a GPU: each step compiled to a few dozen kernels, captured once and replayed as a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from symcore.gradients import Product
from symcore.optimisers import adamw
from symcore.optimisers.blocks import Block

WARM_UPS = 3
NO_LIMIT = 1 << 20
"""Every trainer compiles the same Python function anew, which the compiler would take for a mistake."""
COMPILER: dict[str, str | int | bool | Callable[..., object]] = {
    "deterministic": True,
    "combo_kernels": True,
}
"""Kernels chosen by rule and not by timing them, so a run repeats bit for bit; independent small ones merged."""


class Steps(Protocol):
    """What can be captured: steps that change nothing but the tensors of `state`, and `cursor`."""

    cursor: Tensor
    updates: Tensor
    blocks: list[Block]

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a step changes but the cursor."""

    def step_of(self, size: int, as_products: Collection[str]) -> Callable[[], Sequence[Product | None]]:
        """A step on the next so many images; the gradients of some matrices it may give back as products, by block."""


class GraphedSteps:
    """Replays a step of each minibatch size; a launch waits for no Python."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._captured: list[Callable[[], None]] = []

    def __call__(self, size: int) -> None:
        """One step on the next `size` images of every member."""
        if size not in self._graphs:
            with torch.cuda.device(self._steps.cursor.device), _quiet_compiler():
                step = self._step_of(size)
                self._graphs[size] = self._capture(step)
                self._captured.append(step)  # it owns tensors that the graph reads
        self._graphs[size].replay()

    def _step_of(self, size: int) -> Callable[[], None]:
        """A step in compiled kernels; where products are TF32, those of large matrices update them at once."""
        from symcore import fused_adamw  # noqa: PLC0415 - Triton is there only where a GPU is

        steps = self._steps
        exact = torch.get_float32_matmul_precision() == "highest"
        products = [] if exact else fused_adamw.suited(steps.blocks, size)
        compiled = torch.compile(steps.step_of(size, products), dynamic=False, options=COMPILER)

        def step() -> None:
            for block, product in zip(steps.blocks, compiled(), strict=True):
                if product is not None:
                    assert isinstance(block, adamw.Block)  # no other gives its product back
                    fused_adamw.update(block, product, steps.updates)

        return step

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Captures a step; the warm-up steps that compilation and capture need are undone."""
        steps = self._steps
        state = [*steps.state().values(), steps.cursor]
        before = [t.clone() for t in state]
        steps.cursor.zero_()
        with torch.no_grad():
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
        # torch 2.11 says so of every softmax over few classes
        warnings.filterwarnings("ignore", r"\s*Online softmax is disabled", UserWarning)
        yield
