"""Offsets, fixed biases, a W-Asymmetric start, and masks with FiGLU: what they fix, what stays trained, and what is left of symmetry."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from symcore import asymmetry, controls
from symcore.data import sources
from symcore.networks.gnn import GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.optimisers import adamw, blocks, sgd
from symcore.population import Design, build, forward, load, save
from symcore.symmetry.automorphisms import coloured_graph, find
from symcore.symmetry.inspector import changes
from symcore.training import Trainer, TrainingSpec
from symcore.treatments import (
    AsymmetricInit,
    FixedBiases,
    SigmaAsymmetric,
    Standard,
    Syre,
    WAsymmetric,
    WFiGLU,
)

NETWORKS = {
    "mlp": MLPSpec(width=24, depth=2),
    "resnet": ResNetSpec(depth=8, width=0.25),
    "rnn": RecurrentSpec(width=12),
    "gru": RecurrentSpec(cell="gru", width=12),
    "lstm": RecurrentSpec(cell="lstm", width=12),
    "gnn": GNNSpec(width=24, depth=2),
}
SHAPES = dict.fromkeys(NETWORKS, (8, 8)) | {"gnn": (8,)}
BIASES = {
    "mlp": ["hidden.0.linear.bias", "hidden.1.linear.bias"],
    "resnet": [
        "norm.bias",
        *(f"stages.{s}.0.norm{n}.bias" for s in (0,) for n in (1, 2)),
        *(f"stages.{s}.0.{norm}.bias" for s in (1, 2) for norm in ("norm1", "norm2", "shortcut.norm")),
    ],
    "rnn": ["cell.candidate.input.bias"],
    "gnn": ["hidden.0.norm.bias", "hidden.1.norm.bias"],
    "gru": [f"cell.{gate}.input.bias" for gate in ("reset", "update", "candidate")],
    "lstm": [f"cell.{gate}.input.bias" for gate in ("enter", "forget", "candidate", "output")],
}
EACH = pytest.mark.parametrize("name", NETWORKS)


def population(name, treatment, seeds=(1, 2), mask_seeds=(0,)):
    return build(Design(NETWORKS[name], treatment, SHAPES[name], 10, seeds, mask_seeds))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load("digits", tmp_path_factory.mktemp("data"))


@EACH
def test_syre_offsets_every_parameter_and_trains_all_of_them(name):
    network = NETWORKS[name].build(SHAPES[name], 10)
    drawn = controls.offsets(network, Syre(), 0)
    assert set(drawn.fixed) == {name for name, _ in network.named_parameters()}
    assert asymmetry.trainable_count(network, drawn) == asymmetry.trainable_count(network, None)
    for parameter, offset in drawn.fixed.items():
        inputs = offset[0].numel() if offset.ndim > 1 else len(offset)
        scaled = offset * inputs**0.5 / 0.01
        if offset.numel() > 500:
            assert scaled.std().item() == pytest.approx(1, rel=0.15), parameter
    given = controls.offsets(network, Syre(std=0.3), 0).fixed
    together = torch.cat([f.flatten() for f in given.values()])
    assert together.std().item() == pytest.approx(0.3, rel=0.1)


def starts(start):
    """Its blocks, with a learning rate of .1 and a weight decay of .5."""
    return list(blocks.starts(start.effective(), torch.tensor([0.1]), torch.tensor([0.5]), start.asymmetry))


@pytest.mark.parametrize("begin", [adamw.begin, partial(sgd.begin, momentum=0.0)], ids=["adamw", "sgd"])
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 5)], ids=["shared", "per member"])
def test_weight_decay_alone_takes_a_syre_network_to_its_offset(mask_seeds, begin):
    """Without a gradient W shrinks by 1 - rate * decay in each step, so effective weights go to F and not to 0."""
    start = population("mlp", Syre(std=0.5), mask_seeds=mask_seeds)
    trained = [begin(block) for block in starts(start)]
    for block in trained:
        block.set_rate(torch.tensor([0.2]))
        for step in range(1, 11):
            block.update(torch.zeros_like(block.weights), torch.tensor([float(step)]))
    views = {name: w for block in trained for name, w in block.layout.views(block.weights).items()}
    shrunk = replace(start, parameters={name: w * 0.9**10 for name, w in start.parameters.items()})
    for name, expected in shrunk.effective().items():
        torch.testing.assert_close(views[name], expected, rtol=0, atol=1e-6)


def test_blocks_without_offsets_have_nothing_to_pull():
    for treatment in (Standard(), WAsymmetric(), FixedBiases(), AsymmetricInit()):
        start = population("mlp", treatment)
        assert all(adamw.begin(block).pull is None for block in starts(start))
    for block in starts(population("mlp", Syre())):
        assert adamw.begin(block).pull is not None


@EACH
@pytest.mark.parametrize("bound", [1.0, 27.0])
def test_fixed_biases_are_the_hidden_layers_within_the_bound_and_shared_through_the_mask_seed(name, bound):
    network = NETWORKS[name].build(SHAPES[name], 10)
    assert list(controls.hidden_biases(network)) == BIASES[name]
    first, again, other = (
        controls.fixed_biases(network, FixedBiases(bound=bound), seed) for seed in (3, 3, 4)
    )
    assert list(first.fixed) == BIASES[name]
    assert all(torch.equal(f, again.fixed[n]) for n, f in first.fixed.items())
    assert not any(torch.equal(f, other.fixed[n]) for n, f in first.fixed.items())
    together = torch.cat(list(first.fixed.values()))
    assert bound * 0.7 < together.abs().max() <= bound
    fixed = asymmetry.trainable_count(network, None) - asymmetry.trainable_count(network, first)
    assert fixed == len(together)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_what_is_fixed_of_biases_acts_on_the_outputs(norm):
    """BatchNorm takes a bias before it out again; there its own is fixed."""
    network = MLPSpec(width=12, depth=2, norm=norm).build((8, 8), 10).double()
    images = torch.randn(16, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = network(images)
    for bias in controls.hidden_biases(network).values():
        with torch.no_grad():
            bias[0] += 1
        after = network(images)
        assert (after - before).norm() > 1e-3 * before.norm()
        before = after


def test_a_network_without_biases_has_none_to_fix():
    with pytest.raises(ValueError, match=r"bound: ResNet has no hidden biases; accepted: .* norms"):
        build(Design(ResNetSpec(depth=8, norm="none"), FixedBiases(), (8, 8), 10, (0,)))


@EACH
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 5)], ids=["shared", "per member"])
def test_an_asymmetric_start_is_the_w_asymmetric_networks_and_has_nothing_fixed(name, mask_seeds):
    start = population(name, AsymmetricInit(), mask_seeds=mask_seeds)
    w = population(name, WAsymmetric(), mask_seeds=mask_seeds)
    assert start.asymmetry is None
    for parameter, weights in w.effective().items():
        assert torch.equal(start.effective()[parameter], weights)
        assert torch.equal(start.select([1]).effective()[parameter][0], weights[1])


@EACH
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 5)], ids=["shared", "per member"])
def test_w_with_figlu_has_the_masks_of_w_and_the_gates_of_sigma(name, mask_seeds, tmp_path):
    both, w, sigma = (
        population(name, treatment, mask_seeds=mask_seeds)
        for treatment in (WFiGLU(std=0.5), WAsymmetric(), SigmaAsymmetric(std=0.5))
    )
    for mine, theirs in (
        (both.effective(), w.effective()),
        (both.asymmetry.trainable, w.asymmetry.trainable),
        (both.buffers, sigma.buffers),
    ):
        assert list(mine) == list(theirs)
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
    x = torch.randn(3, *SHAPES[name])
    logits = forward(both, x)
    assert torch.equal(forward(sigma.with_effective(w.effective()), x), logits)
    assert not torch.allclose(forward(w, x), logits, rtol=1e-2)
    save(both, tmp_path / "weights.safetensors")
    assert torch.equal(forward(load(tmp_path / "weights.safetensors"), x), logits)


def test_the_graph_network_of_the_authors_code_has_the_papers_count_and_starts_almost_linear():
    """Lim et al. 2024: mask and FiGLU, 171,576 trainable; on inputs of unit variance gates are 1/2 to about 0.0025."""
    one = build(Design(GNNSpec(), WFiGLU(std=0.01 / 16), (128,), 40, (0,)))
    assert asymmetry.trainable_count(one.network, one.asymmetry) == 171_576
    x = torch.randn(1000, 256)
    gated = one.network.hidden[1].activation(x)
    assert (gated / x - 0.5).std().item() == pytest.approx(0.0025, rel=0.1)


@EACH
@pytest.mark.parametrize("treatment", [AsymmetricInit(), Syre(), FixedBiases()], ids=lambda t: t.kind)
def test_networks_come_back_from_a_file_and_as_bound_modules(name, treatment, tmp_path):
    several, x = population(name, treatment), torch.randn(3, *SHAPES[name])
    save(several, tmp_path / "weights.safetensors")
    back = load(tmp_path / "weights.safetensors")
    logits = forward(several, x)
    assert torch.equal(forward(back, x), logits)
    module = NETWORKS[name].build(SHAPES[name], 10)
    module.load_state_dict({n: p[1] for n, p in several.parameters.items()})
    if several.asymmetry:
        asymmetry.bind(module, several.asymmetry)
    torch.testing.assert_close(module(x), logits[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "resnet", "rnn"])
@pytest.mark.parametrize(
    "treatment", [AsymmetricInit(), Syre(), FixedBiases(), WFiGLU()], ids=lambda t: t.kind
)
def test_training_moves_what_is_trained_and_not_one_bit_of_what_is_fixed(name, treatment, digits):
    start = population(name, treatment)
    trainer = Trainer(start, digits, TrainingSpec(weight_decay=0.3))
    trainer.begin(trainer.draw(0))
    step = trainer.step_of(64)
    with torch.no_grad():
        step()
        step()
    for parameter, before in start.effective().items():
        after = trainer.trained().effective()[parameter]
        free = torch.ones_like(before[0], dtype=torch.bool)
        if start.asymmetry and parameter in start.asymmetry.trainable:
            free = start.asymmetry.trainable[parameter]
        assert torch.equal(after[:, ~free], before[:, ~free])
        assert (after[:, free] != before[:, free]).float().mean() > 0.9 if free.any() else True


@EACH
@pytest.mark.parametrize("treatment", [Syre(), FixedBiases(), WFiGLU()], ids=lambda t: t.kind)
def test_offsets_fixed_biases_and_masks_with_figlu_leave_no_permutation(name, treatment):
    one = population(name, treatment, seeds=(1,))
    found = find(coloured_graph(one.network, torch.zeros(2, *SHAPES[name]), one.asymmetry))
    assert found.trivial


@pytest.mark.parametrize("form", ["entry", "filter"])
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ResNetSpec(depth=8, width=0.25), (3, 32, 32)),
        (ResNetSpec(depth=8, width=0.25), (8, 8)),
        (ResNetSpec(depth=8, width=1), (8, 8)),
        (MLPSpec(width=2), (8, 8)),
        (MLPSpec(width=5), (8, 8)),
        (GNNSpec(width=4), (8,)),
        (RecurrentSpec(cell="lstm", width=4), (8, 8)),
    ],
)
def test_zeros_leave_no_permutation_in_networks_too_narrow_for_the_default_masks(network, shape, form):
    matrices = asymmetry.weight_matrices(network.build(shape, 10))
    treatment = WAsymmetric(form=form, kappa=(0,) * len(matrices))
    one = build(Design(network, treatment, shape, 10, seeds=(1,)))
    found = find(coloured_graph(one.network, torch.zeros(2, *shape), one.asymmetry))
    assert (found.trivial, found.certificate) == (True, "forward")


def test_equal_offsets_leave_every_permutation():
    one = population("mlp", Syre(), seeds=(1,))
    level = replace(one.asymmetry, fixed={n: torch.full_like(f, 0.1) for n, f in one.asymmetry.fixed.items()})
    plain = population("mlp", Standard(), seeds=(1,))
    orders = [
        find(coloured_graph(p.network, torch.zeros(2, 8, 8), asym)).log10_most
        for p, asym in ((one, level), (plain, None), (population("mlp", AsymmetricInit(), (1,)), None))
    ]
    assert orders[0] == orders[1] == orders[2] > 40


def test_what_is_measured_of_permutations_grows_with_the_offset():
    """syre: W is permuted while F stays, so the change is of F's order; a bias fixed before a norm is told apart too."""
    sizes = {}
    for std in (1e-4, 1e-2):
        one = population("mlp", Syre(std=std), seeds=(1,))
        sizes[std] = changes(one, draws=8, probes=16, seed=0)["permutation"].mean()
    assert 1e-10 < sizes[1e-4] < sizes[1e-2] < 1
    assert sizes[1e-2] / sizes[1e-4] == pytest.approx(100, rel=0.3)
    biased = changes(population("mlp", FixedBiases(), seeds=(1,)), draws=8, probes=16, seed=0)
    assert biased["permutation"].min() > 0.05
