"""Recurrent cells are torch's, masked ones stay bounded, and a population of them trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from symcore import asymmetry
from symcore.data import sources
from symcore.networks.recurrent import HIDDEN_MAP, RecurrentSpec
from symcore.population import Design, build
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, WAsymmetric

GATES = {
    "rnn": (nn.RNN, ["candidate"]),
    "gru": (nn.GRU, ["reset", "update", "candidate"]),
    "lstm": (nn.LSTM, ["enter", "forget", "candidate", "output"]),
}
"""torch's module of each cell, and our gates in its order."""


@pytest.mark.parametrize("cell", GATES)
def test_a_cell_is_torchs_with_one_bias(cell: str) -> None:
    network = RecurrentSpec(cell=cell, width=7).build((5, 3), 4)
    kind, gates = GATES[cell]
    theirs = kind(3, 7, batch_first=True)
    own = [network.cell.get_submodule(gate) for gate in gates]
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.cat([g.input.weight for g in own]))
        theirs.weight_hh_l0.copy_(torch.cat([g.hidden.weight for g in own]))
        theirs.bias_ih_l0.copy_(torch.cat([g.input.bias for g in own]))
        theirs.bias_hh_l0.zero_()
    x = torch.randn(6, 5, 3)
    expected = network.readout(theirs(x)[0][:, -1])
    torch.testing.assert_close(network(x), expected)


def test_colours_stand_beside_each_other_in_a_row() -> None:
    network = RecurrentSpec(width=4).build((3, 5, 2), 2)
    x = torch.randn(1, 3, 5, 2)
    assert network.cell.candidate.input.in_features == 6
    rows = x.permute(0, 2, 1, 3).reshape(1, 5, 6)
    grey = RecurrentSpec(width=4).build((5, 6), 2)
    grey.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(x), grey(rows))
    with pytest.raises(ValueError, match=r"row by row; got inputs of shape \[9\]"):
        RecurrentSpec().build((9,), 2)


@pytest.mark.parametrize("cell", GATES)
def test_what_is_fixed_of_a_map_from_the_state_has_a_bounded_radius(cell: str) -> None:
    """About 0.9 for entries of standard deviation 0.9 / sqrt(n_fix); the law of large random matrices."""
    network = RecurrentSpec(cell=cell, width=200).build((8, 8), 10)
    drawn = asymmetry.draw(network, WAsymmetric(), 0)
    for name, fixed in drawn.fixed.items():
        if name.endswith(HIDDEN_MAP):
            radius = np.abs(np.linalg.eigvals(fixed.numpy())).max()
            assert radius == pytest.approx(0.9, rel=0.15)


@pytest.mark.parametrize("treatment", [Standard(), WAsymmetric(), SigmaAsymmetric()], ids=lambda t: t.kind)
def test_a_population_learns_digits_row_by_row(treatment, tmp_path) -> None:
    digits = sources.load("digits", tmp_path)
    start = build(Design(RecurrentSpec(width=32), treatment, (8, 8), 10, (0, 1)))
    told: dict[int, dict] = {}
    training = TrainingSpec(epochs=8, learning_rate=5e-3)
    fit(Trainer(start, digits, training), hooks=Hooks(on_epoch=told.__setitem__))
    assert (told[8]["test/accuracy"] > 0.7).all()
