"""What a person's own network must be for the lab to work with it, checked on one freshly initialised network.

It is a function of its inputs and parameters, image by image; its permutations follow from its graph, and permuting it
leaves its function as it is; torch can vectorise it over networks and differentiate it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from symcore.align.proof import prove
from symcore.networks.adopted import adopt
from symcore.networks.batchnorm import EPSILON, batch_norms, observed
from symcore.networks.layout import Layout, read
from symcore.randomness import stream
from symcore.symmetry import permutations

IMAGES = 3
"""Images that a network is tried on."""
TOLERANCE = 1e-4
"""Largest change of an output by rounding, relative to the largest output."""


class NetworkError(ValueError):
    """A network of a person's own is not there, or is not what the lab can work with."""


def check(name: str, build: Callable[[], nn.Module], input_shape: tuple[int, ...], classes: int) -> Layout:
    """Builds a network, makes sure that everything in the lab holds for it, and reads off its graph what stands where.

    Args:
        name: of the network, for messages.
        build: makes it, freshly initialised.
        input_shape: of one input, without the batch axis.
        classes: how many logits it gives.

    Raises:
        NetworkError: saying what it does that it must not, and what is accepted.
    """
    torch.manual_seed(0)
    x = torch.randn(IMAGES, *input_shape)
    with _telling(name, "it cannot be built"):
        network = build()
    if not isinstance(network, nn.Module) or not list(network.parameters()):
        msg = f"network {name!r}: build gave {type(network).__name__}; accepted: a torch.nn.Module with parameters"
        raise NetworkError(msg)
    adopt(network)
    _check_outputs(name, network, x, classes)
    with _telling(name, "it cannot be built without values, on torch's device 'meta'"), torch.device("meta"):
        adopt(build())(x.to("meta"))
    found = _check_permutations(name, network, x)
    with _telling(name, "torch.func cannot vectorise and differentiate it"):
        _gradient(network, x)
    return found


@contextmanager
def _telling(name: str, what: str) -> Iterator[None]:
    """Says of whatever goes wrong in a person's code what the lab was about to do."""
    try:
        yield
    except Exception as error:
        msg = f"network {name!r}: {what}: {type(error).__name__}: {' '.join(str(error).split())}"
        raise NetworkError(msg) from error


@torch.no_grad()
def _check_outputs(name: str, network: nn.Module, x: Tensor, classes: int) -> None:
    before = {key: buffer.clone() for key, buffer in network.named_buffers()}
    with _telling(name, f"it cannot be called with inputs {list(x.shape)}"):
        outputs = network(x)
    if not isinstance(outputs, Tensor) or outputs.shape != (len(x), classes):
        given = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        msg = f"network {name!r}: inputs {list(x.shape)} give {given}; accepted: logits {[len(x), classes]}"
        raise NetworkError(msg)
    if again := _called_again(network, x):
        msg = (
            f"network {name!r}: a call passes BatchNorm {', '.join(again)} not once; accepted: a BatchNorm of its own for "
            "each place, for it has one mean and one variance"
        )
        raise NetworkError(msg)
    changed = [key for key, buffer in network.named_buffers() if not torch.equal(buffer, before[key])]
    if changed:
        msg = (
            f"network {name!r}: a call changes its buffers {', '.join(changed)}, as BatchNorm does with its running "
            f"statistics; accepted: buffers that stay (nn.BatchNorm1d, 2d and 3d with weights and eps {EPSILON:g}, whose "
            "statistics the lab estimates, and norms of each image by itself: LayerNorm, RMSNorm, GroupNorm)"
        )
        raise NetworkError(msg)
    scale = float(outputs.abs().max())
    network.eval()
    if not _close(network(x), outputs, scale):
        msg = (
            f"network {name!r}: a second call, in evaluation mode, gives other outputs for the same inputs, as with "
            "dropout; accepted: networks that compute the same in training and evaluation, without chance (the lab takes "
            "out modules of nn.Dropout, not what forward calls)"
        )
        raise NetworkError(msg)
    statistics = observed(network, lambda: network(x))
    alone, together = (functional_call(network, statistics, (rows,))[:1] for rows in (x[:1], x))
    if not _close(alone, together, scale):
        msg = f"network {name!r}: an image's outputs depend on the others in its batch; accepted: each by itself"
        raise NetworkError(msg)


def _called_again(network: nn.Module, x: Tensor) -> list[str]:
    """Names of the BatchNorm modules that a call does not pass exactly once."""
    passed = Counter[nn.Module]()
    norms = {norm: network.get_submodule(norm) for norm in batch_norms(network)}
    hooks = [
        m.register_forward_pre_hook(lambda module, _inputs: passed.update([module])) for m in norms.values()
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return [norm for norm, module in norms.items() if passed[module] != 1]


def _close(found: Tensor, outputs: Tensor, scale: float) -> bool:
    return bool((found - outputs).abs().max() <= TOLERANCE * scale)


def _check_permutations(name: str, network: nn.Module, x: Tensor) -> Layout:
    """Derives the permutations of its neurons, and proves that a random one leaves the function as it is; its layout."""
    with _telling(
        name,
        "the permutations of its neurons cannot be read off its graph (docs/own-networks.md lists what works)",
    ):
        traced = permutations.trace(network, x)
        spec = permutations.groups(traced)
    draw = stream(0, "network.check")
    weights = {key: p.detach().unsqueeze(0) for key, p in network.named_parameters()}
    moved, signs = permutations.random(spec, draw, 1), permutations.random_signs(spec, draw, 1)
    with _telling(name, "its permutations do not leave its function as it is"):
        prove(network, x, weights, spec, moved, signs)
    return read(traced)


def _gradient(network: nn.Module, x: Tensor) -> None:
    """The gradient of two networks at once, as training takes it."""
    buffers = dict(network.named_buffers())

    def total(parameters: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = functional_call(network, {**parameters, **buffers}, (x,))
        return outputs.sum()

    vmap(grad(total))({key: torch.stack([p.detach()] * 2) for key, p in network.named_parameters()})
