"""Proof, by example, that permuting networks left their functions as they were."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from symcore.align.matching import Matching, dot, inner_product
from symcore.precision import arithmetic
from symcore.randomness import stream
from symcore.symmetry.permutations import PermutationSpec, permute

Tensors = Mapping[str, Tensor]

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Largest change of an output that a permutation may cause, relative to the largest output."""


class AlignmentError(Exception):
    """Permuting a network changed what it computes, so the permutation specification does not fit it."""


def prove(
    network: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    weights: Tensors,
    spec: PermutationSpec,
    permutations: Tensors,
    signs: Tensors | None = None,
    *,
    seed: int = 0,
) -> None:
    """Compares every network with its permuted self on random inputs, on the weights' device where that has float64.

    Args:
        network: the common form of all networks; its buffers are used, its parameters are not.
        example_input: its argument or a tuple of them; normal values take the place of floating-point ones.
        weights: by name, [pair, *shape].
        spec: the network's permutations.
        permutations: by group, [pair, n].
        signs: by group where neurons change sign, [pair, n].
        seed: of the normal values.

    Raises:
        AlignmentError: if one of them computes something else than before.
    """
    device = next(iter(weights.values())).device
    device = torch.device("cpu") if device.type == "mps" else device
    weights = {name: w.to(device) for name, w in weights.items()}
    network = copy.deepcopy(network).to(device).eval()
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    probe = tuple(x.to(device) for x in _probe(tuple(x.detach().cpu() for x in examples), seed))
    permuted = permute(weights, spec, permutations, signs)
    # cuDNN's float64 convolutions take several times as long as unfolding and a product
    with arithmetic("float32"), torch.backends.cudnn.flags(enabled=False):
        _compare(network, weights, permuted, probe)


def proven(
    network: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    a: Tensors,
    b: Tensors,
    matching: tuple[PermutationSpec, dict[str, Tensor], dict[str, Tensor]],
    *,
    sweeps: Tensor | None = None,
    seed: int = 0,
) -> Matching:
    """What was found, with its objectives, once it has passed `prove`.

    Args:
        network: as `prove` takes it.
        example_input: likewise.
        a: weights by name, [pair, *shape].
        b: likewise; what is permuted.
        matching: the network's permutations, and those that were found, with signs.
        sweeps: of each pair, [pair]; none given, 1.
        seed: of the proof.

    Raises:
        AlignmentError: as `prove` does.
    """
    spec, permutations, signs = matching
    prove(network, example_input, b, spec, permutations, signs, seed=seed)
    objective = inner_product(a, b, spec, permutations, signs)
    once = torch.ones(len(objective), dtype=torch.int64)
    return Matching(
        spec=spec,
        permutations=permutations,
        objective=objective,
        identity_objective=dot(a, b),
        sweeps=once if sweeps is None else sweeps,
        restart=torch.zeros_like(once),
        signs=signs,
    )


PAIRS_AT_ONCE = 32
"""Pairs whose networks compute together; the rest wait, for their maps take memory."""


def _compare(network: nn.Module, weights: Tensors, permuted: Tensors, probe: tuple[Tensor, ...]) -> None:
    for first in range(0, len(next(iter(weights.values()))), PAIRS_AT_ONCE):
        some = slice(first, first + PAIRS_AT_ONCE)
        (before, after), tolerance = _outputs(
            network, [_rows(side, some) for side in (weights, permuted)], probe
        )
        change, scale = (after - before).abs().amax(1).tolist(), before.abs().amax(1).tolist()
        for pair, (moved, largest) in enumerate(zip(change, scale, strict=True), first):
            if not moved <= tolerance * largest:
                msg = (
                    f"pair {pair}: permuting the network changes its outputs by up to {moved:.3g}, where the largest is "
                    f"{largest:.3g} (allowed: {tolerance:g} of it); the permutation specification does not fit it"
                )
                raise AlignmentError(msg)


def _probe(examples: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Normal values in the shapes of the floating-point examples, in float64; others as they are."""
    draw = stream(seed, "match.probe")
    return tuple(
        torch.from_numpy(draw.standard_normal(tuple(x.shape))) if x.is_floating_point() else x
        for x in examples
    )


def _rows(weights: Tensors, some: slice) -> dict[str, Tensor]:
    return {name: w[some] for name, w in weights.items()}


def _outputs(
    network: nn.Module, sides: Sequence[Tensors], probe: tuple[Tensor, ...]
) -> tuple[list[Tensor], float]:
    """All numbers that networks of weights [pair, *shape] give, [pair, number], and how far rounding may move them.

    They are of float64, or float32 where a network makes such tensors itself and cannot multiply them with others.
    """
    dtype = torch.float64
    try:
        found = [_in_type(network, weights, probe, dtype) for weights in sides]
    except RuntimeError:
        dtype = torch.float32
        found = [_in_type(network, weights, probe, dtype) for weights in sides]
    return found, TOLERANCE[dtype]


@torch.no_grad()
def _in_type(network: nn.Module, weights: Tensors, probe: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    network = network.to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in probe)

    def one(own: Tensors) -> Tensor:
        outputs = functional_call(network, dict(own), inputs)
        return torch.cat([x.flatten() for x in (outputs if isinstance(outputs, tuple) else (outputs,))])

    found: Tensor = vmap(one)({name: w.to(dtype) for name, w in weights.items()})
    return found
