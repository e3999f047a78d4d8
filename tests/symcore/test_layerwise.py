"""Layers are the network's, and exchanging them one after another leads from one network to the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from symcore.data import sources
from symcore.landscape.layerwise import ORDERS, grafted, layers, moving
from symcore.landscape.paths import alphas, linear_path
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.treatments import Standard


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (MLPSpec(width=8), (8, 8), 4),
        (ResNetSpec(depth=8, width=0.25), (3, 8, 8), 10),  # 7 convolutions, 2 shortcuts, readout
        *((RecurrentSpec(cell=cell, width=8), (8, 8), 2) for cell in ("rnn", "gru", "lstm")),
    ],
)
def test_every_parameter_is_in_one_layer_and_every_layer_has_a_matrix(network, shape, count):
    made = build(Design(network, Standard(), shape, 10, (0,)))
    parameters, found = made.parameters, layers(made.network)
    assert [name for names in found.values() for name in names] == list(parameters)
    assert all(any(parameters[name].ndim > 2 for name in names) for names in found.values())
    assert len(found) == count


def test_all_layers_up_to_the_last_make_the_other_network():
    a, b = ({name: torch.full((1, 2), end) for name in "xyz"} for end in (0.0, 1.0))
    names = [["x"], ["y"], ["z"]]
    for order in ORDERS:
        for layer in range(3):
            hybrid = grafted(a, b, [names[place] for place in moving(layer, 3, order)])
            wanted = {"single": "xyz"[layer], "bottom": "xyz"[: layer + 1], "top": "xyz"[layer:]}[order]
            assert "".join(name for name, w in hybrid.items() if w.all()) == wanted
    assert grafted(a, b, names).keys() == b.keys()


class DeepLinear(nn.Module):
    """Two linear maps and nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 5, bias=False), nn.Linear(5, 10, bias=False)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))


def test_in_a_linear_network_a_single_layer_has_no_barrier(tmp_path):
    """Its logits are linear in each layer, and cross-entropy is convex in logits; both layers together have one."""
    network = DeepLinear().requires_grad_(requires_grad=False)
    draw = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(2, *p.shape, generator=draw) for n, p in network.named_parameters()}
    a, b = ({n: w[end : end + 1] for n, w in weights.items()} for end in range(2))
    digits = sources.load("digits", tmp_path)
    evaluator = Evaluator(network, digits)
    found = list(layers(network).values())
    for layer in range(2):
        end = grafted(a, b, [found[layer]])
        loss = linear_path(evaluator, a, end, {}, "test", alphas(9)).loss[0]
        assert (np.diff(loss, 2) > -1e-5).all()  # convex
    minus = {n: -w for n, w in a.items()}  # the same function; halfway lies the zero network
    loss = linear_path(evaluator, a, minus, {}, "test", alphas(3)).loss[0]
    assert loss[0] == pytest.approx(loss[2], rel=1e-5)
    assert loss[1] == pytest.approx(np.log(10), rel=1e-5)
