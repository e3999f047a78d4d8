"""Traced programs compute what their functions compute, once for each shape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vmap

from symcore.program import Program, flat


def squares(w: Tensor, x: Tensor) -> Tensor:
    return (x @ w).tanh().square().sum()


def gradients(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    return (vmap(grad(squares), in_dims=(0, None))(*tensors),)


def test_a_program_computes_what_its_function_does_for_every_number_of_members() -> None:
    program = Program(gradients)
    for members in (1, 3, 1):
        w, x = torch.randn(members, 4, 2), torch.randn(5, 4)
        torch.testing.assert_close(program([w, x])[0], gradients([w, x])[0])


def test_all_that_a_trace_notes_shares_one_mode() -> None:
    """A mode for each operation costs more than the rest of tracing."""
    graph = flat(lambda *tensors: gradients(list(tensors)), [torch.randn(2, 4, 2), torch.randn(5, 4)]).graph
    noted = [node.meta["val"] for node in graph.nodes if "val" in node.meta]
    assert len(noted) > 3
    assert len({value.fake_mode for value in noted}) == 1
