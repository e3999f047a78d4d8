"""Which parameters are random together is read off a network as it runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from symcore.networks.batchnorm import BatchNorm
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.posteriors.layers import Group, Instead, groups


@pytest.mark.parametrize(
    ("network", "shape", "layers"),
    [
        (MLPSpec(width=8, depth=2), (1, 8, 8), 3),
        (ResNetSpec(depth=8, width=0.25), (1, 8, 8), 1 + 6 + 2 + 1),
        (ResNetSpec(depth=8, width=0.25, norm="batch"), (1, 8, 8), 1 + 6 + 2 + 1),
        (GNNSpec(width=8, depth=2), (5,), 3),
    ],
)
def test_layers_that_are_passed_once_are_groups_and_norms_are_in_none(network, shape, layers):
    built = network.build(shape, 10)
    found = groups(built, torch.zeros(3, *shape))
    assert len(found) == layers
    assert all(group.once for group in found)
    norms = (nn.LayerNorm, nn.GroupNorm, BatchNorm)
    kept = {
        f"{path}.{name}"
        for path, module in built.named_modules()
        if not isinstance(module, norms)
        for name, _ in module.named_parameters(recurse=False)
    }
    assert kept == {name for group in found for name in group.names}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_weights_that_are_read_at_every_step_are_drawn_themselves(cell):
    found = groups(RecurrentSpec(cell=cell, width=4).build((5, 6), 10), torch.zeros(2, 5, 6))
    assert [group.names for group in found if group.once] == [("readout.weight", "readout.bias")]
    assert found[-1].scale == 10
    assert len(found) == 1 + 2 * {"rnn": 1, "gru": 3, "lstm": 4}[cell]


class Odd(nn.Module):
    """A weight that is read beside its layer, one by its own product, filters in two halves, and a tied layer."""

    def __init__(self):
        super().__init__()
        self.first, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)
        self.halves = nn.Conv1d(4, 4, 1, groups=2)
        self.matrix, self.gain = nn.Parameter(torch.eye(4)), nn.Parameter(torch.ones(4))
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = F.linear(bias=self.first.bias, weight=self.first.weight, input=x) + self.first.weight[0]
        x = self.tied(self.norm(self.tied(x)))
        return self.halves((x @ self.matrix.T * self.gain).unsqueeze(-1)).squeeze(-1)


def test_a_layer_is_passed_once_only_if_nothing_else_reads_it_and_each_output_reads_all_inputs():
    assert groups(Odd(), torch.zeros(2, 4)) == [
        Group(("matrix", "gain"), once=False, scale=4),
        Group(("first.weight", "first.bias"), once=False, scale=4),
        Group(("tied.weight", "tied.bias"), once=False, scale=4),
        Group(("halves.weight", "halves.bias"), once=False, scale=2),
    ]


def test_only_a_layer_that_has_a_rule_gives_something_else():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))
    x = torch.randn(5, 3)
    with Instead({id(network[1].weight): lambda p: p.apply(p.inputs, 2 * p.weight, p.bias) + 1}):
        changed = network(x)
    assert torch.allclose(changed, 2 * network(x) + 1)
