"""REPAIR (Jordan et al. 2023): gives the neurons of interpolated networks the spread that averaging took from them.

Halfway between two networks that disagree, a neuron's input varies less over images than at either end. REPAIR scales
and shifts the output of every linear map and convolution that feeds hidden neurons, channel by channel, so that over training
images (of a graph all nodes) its mean and standard deviation are what lies on the line between the ends': with alpha from a to b,

    mean = (1 - alpha) mean_a + alpha mean_b,    std = (1 - alpha) std_a + alpha std_b.

Layers are corrected in the order in which data passes them, each on what the corrected ones before it put out. A map
that is called several times, as a recurrent cell's is at each step, gets a correction for each call.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils.hooks import RemovableHandle

from symcore.asymmetry import Parameters
from symcore.landscape.paths import interpolate
from symcore.metrics import Array, rows_at_once
from symcore.networks.gnn import neighbours
from symcore.networks.layout import layout
from symcore.networks.shapes import layers, output_shapes
from symcore.population import call_one
from symcore.propagation import Graph
from symcore.symmetry.automorphisms import neurons

SCALE, SHIFT = "repair_scale", "repair_shift"
"""Names of the parameters that a corrected map has beside its own, [call, channel]."""
MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
FLAT = 1e-6
"""A channel whose spread is less than so much of what it should be stands still, and is shifted only."""

Treat = Callable[[str, nn.Module, int, Tensor], Tensor]
"""What is done to a map's output: its name, the map, which call of it this is, the output -> another output."""
Tensors = Mapping[str, Tensor]


def check_maps(network: nn.Module) -> None:
    """Makes sure that the output of every hidden map can be corrected.

    Raises:
        ValueError: if a person's own network calls one as a function, with a weight of its own.
    """
    held = _weights_of_maps(network).values()
    if functions := [name for name in layout(network).maps[:-1] if name not in held]:
        msg = (
            f"repair: {', '.join(functions)} are weights of hidden maps that forward calls as functions; accepted: networks "
            f"whose hidden maps are modules ({', '.join(kind.__name__ for kind in MAPS)})"
        )
        raise ValueError(msg)


def _weights_of_maps(network: nn.Module) -> dict[str, str]:
    """The parameter that is the weight of each map; of those with one weight it has the first one's name."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        name: names[id(module.weight)]
        for name, module in network.named_modules()
        if isinstance(module, MAPS) and id(module.weight) in names
    }


def hidden_maps(network: nn.Module, example: Tensor) -> list[str]:
    """Names of the linear maps and convolutions whose outputs feed hidden neurons: all but those of the logits.

    Raises:
        DerivationError: if the neurons cannot be read off the network's graph.
        ValueError: if one of them is no module; see `check_maps`.
    """
    check_maps(network)
    incident = neurons(network, example).parameters
    weights = _weights_of_maps(network)
    return [name for name, w in weights.items() if any(axis == 0 for axis, _ in incident.get(w, ()))]


def repairable(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network with a scale and a shift for each channel of its hidden maps; at first they change nothing.

    Args:
        network: an ordinary module; it is left as it is.
        example: an input of it, [batch, ...].
    """
    corrected, maps = copy.deepcopy(network), hidden_maps(network, example)
    calls: Counter[str] = Counter()

    def count(name: str, _module: nn.Module, _call: int, output: Tensor) -> Tensor:
        calls[name] += 1
        return output

    hooks = _attach(corrected, maps, count)
    with torch.no_grad():
        corrected(example)
    for hook in hooks:
        hook.remove()
    for name in calls:
        module = corrected.get_submodule(name)
        weight = module.get_parameter("weight")
        for parameter, value in ((SCALE, 1.0), (SHIFT, 0.0)):
            same = weight.new_full((calls[name], len(weight)), value)
            module.register_parameter(parameter, nn.Parameter(same, requires_grad=False))

    def correct(_name: str, module: nn.Module, call: int, output: Tensor) -> Tensor:
        scale, shift = _held(module, SCALE)[call], _held(module, SHIFT)[call]
        return _along(scale, module, output) * output + _along(shift, module, output)

    _attach(corrected, list(calls), correct)
    return corrected


def _attach(network: nn.Module, maps: Sequence[str], treat: Treat) -> list[RemovableHandle]:
    """Treats what some maps put out at every call of the network."""
    calls: Counter[str] = Counter()

    def begin(_network: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        calls.clear()

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name] += 1
            return treat(name, module, calls[name] - 1, output)

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(hook_of(name)) for name in maps]
    return [network.register_forward_pre_hook(begin), *hooks]


def _held(module: nn.Module, name: str) -> Tensor:
    """A parameter of a module, or what takes its place in a functional call."""
    tensor: Tensor = getattr(module, name)
    return tensor


def _channel(module: nn.Module, output: Tensor) -> int:
    """The axis of a map's output on which its channels lie: the last, or before a convolution's positions."""
    return output.ndim + 1 - _held(module, "weight").ndim


def _along(values: Tensor, module: nn.Module, output: Tensor) -> Tensor:
    """Values [channel] in a shape that broadcasts over the output."""
    shape = [1] * output.ndim
    shape[_channel(module, output)] = -1
    return values.view(shape)


def _moments(module: nn.Module, output: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over images and positions, [channel]."""
    channel = _channel(module, output)
    var, mean = torch.var_mean(output, [d for d in range(output.ndim) if d != channel], correction=0)
    return mean, var.sqrt()


Moments = dict[str, tuple[Tensor, Tensor]]
"""Mean and standard deviation by map, [call, channel], of many networks [member, call, channel]."""


class _Estimation:
    """Forward passes of networks on all images or nodes at once, in which the outputs of hidden maps are seen or corrected."""

    def __init__(
        self, network: nn.Module, images: Tensor, graph: Graph | tuple[()], *, stacked_buffers: bool
    ) -> None:
        self._network, self._inputs = network, (images, *neighbours(network, graph))
        self._maps = hidden_maps(network, images[:2])
        self._buffers_axis = 0 if stacked_buffers else None

    def moments(self, parameters: Tensors, buffers: Tensors) -> Moments:
        """What the hidden maps of networks [member, *shape] put out as they are."""

        def one(own: Parameters, held: Parameters) -> Moments:
            found: dict[str, list[tuple[Tensor, Tensor]]] = {}

            def record(name: str, module: nn.Module, _call: int, output: Tensor) -> Tensor:
                found.setdefault(name, []).append(_moments(module, output))
                return output

            self._call(own, held, record)
            return _stacked(found)

        seen: Moments = vmap(one, in_dims=(0, self._buffers_axis))(dict(parameters), dict(buffers))
        return seen

    def corrections(self, parameters: Tensors, buffers: Tensors, wanted: Moments, end: Tensor) -> Moments:
        """Scales and shifts, [member, call, channel], that give hidden maps wanted moments; none where `end` [member]."""

        def one(own: Parameters, held: Parameters, target: Moments, at_end: Tensor) -> Moments:
            found: dict[str, list[tuple[Tensor, Tensor]]] = {}

            def correct(name: str, module: nn.Module, call: int, output: Tensor) -> Tensor:
                (mean, std), (to_mean, to_std) = _moments(module, output), (t[call] for t in target[name])
                alive = (std > FLAT * to_std) & ~at_end
                scale = torch.where(alive, to_std / std, 1)
                shift = torch.where(at_end, 0, to_mean - scale * mean)
                found.setdefault(name, []).append((scale, shift))
                return _along(scale, module, output) * output + _along(shift, module, output)

            self._call(own, held, correct)
            return _stacked(found)

        many = vmap(one, in_dims=(0, self._buffers_axis, 0, 0))
        made: Moments = many(dict(parameters), dict(buffers), wanted, end)
        return made

    def _call(self, parameters: Parameters, buffers: Parameters, treat: Treat) -> None:
        hooks = _attach(self._network, self._maps, treat)
        try:
            call_one(self._network, parameters, buffers, *self._inputs)
        finally:
            for hook in hooks:
                hook.remove()


def _stacked(found: Mapping[str, Sequence[tuple[Tensor, Tensor]]]) -> Moments:
    """Both values of each call, [channel], as [call, channel]."""
    return {
        name: (torch.stack([first for first, _ in calls]), torch.stack([second for _, second in calls]))
        for name, calls in found.items()
    }


@torch.no_grad()
def estimate(
    network: nn.Module,
    a: Tensors,
    b: Tensors,
    buffers: Tensors,
    images: Tensor,
    positions: Array,
    *,
    stacked_buffers: bool = False,
    graph: Graph | tuple[()] = (),
    on_points: Callable[[int], None] = lambda _: None,
) -> Parameters:
    """The corrections of every point on the paths of pairs of networks: what a `repairable` copy of the network takes.

    Args:
        network: the common form of all networks; its own weights are not used.
        a: effective weights at alpha = 0, [pair, *shape].
        b: effective weights at alpha = 1, [pair, *shape], permuted already if they are to be.
        buffers: the module's, shared or [pair, *shape]; the networks of a pair share theirs.
        images: normalised training images, [image, *input_shape], over which means and standard deviations are taken.
        positions: alphas in [0, 1]; at 0 and 1 nothing is corrected.
        stacked_buffers: whether buffers have a pair axis.
        graph: whose nodes the images are, all of them in order.
        on_points: called with the number of points done; may raise to stop.

    Returns:
        By parameter name, [pair, alpha, call, channel].
    """
    largest = max(s.numel() for s in output_shapes(network, layers(network), images[:1]).values())
    at_once = max(1, rows_at_once(images.device.type, largest) // len(images))
    pairs = len(next(iter(a.values())))
    work = _Estimation(network, images, graph, stacked_buffers=stacked_buffers)
    found: list[list[Moments]] = []
    for pair in range(pairs):
        own, end = ({name: w[pair : pair + 1] for name, w in ends.items()} for ends in (a, b))
        held = {name: v[pair : pair + 1] if stacked_buffers else v for name, v in buffers.items()}
        of_a, of_b = work.moments(own, held), work.moments(end, held)
        found.append([])
        for some in np.split(positions, range(at_once, len(positions), at_once)):
            of_points = {
                n: v.expand(len(some), *v.shape[1:]) if stacked_buffers else v for n, v in held.items()
            }
            alpha = torch.as_tensor(some, dtype=images.dtype, device=images.device)
            wanted = _between(of_a, of_b, alpha)
            at_end = (alpha == 0) | (alpha == 1)
            points = interpolate(own, end, some)
            found[-1].append(work.corrections(points, of_points, wanted, at_end))
            on_points(pair * len(positions) + sum(len(next(iter(f.values()))[0]) for f in found[-1]))
    return {
        f"{name}.{kind}": torch.stack([torch.cat([part[name][place] for part in path]) for path in found])
        for name in found[0][0]
        for place, kind in enumerate((SCALE, SHIFT))
    }


def _between(of_a: Moments, of_b: Moments, alpha: Tensor) -> Moments:
    """Moments [1, call, channel] of two networks -> those on the line between them, [alpha, call, channel]."""
    share = alpha.view(-1, 1, 1)
    return {
        name: tuple((1 - share) * x + share * y for x, y in zip(ends, of_b[name], strict=True))  # type: ignore[misc]
        for name, ends in of_a.items()
    }
