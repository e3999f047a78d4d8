"""W-Asymmetry: masks with exactly n_fix zeros and distinct rows, F + D * W, and the papers' parameter counts."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from symcore import asymmetry
from symcore.asymmetry import MaskedLayer, mask
from symcore.networks.mlp import MLPSpec
from symcore.networks.resnet import ResNetSpec
from symcore.randomness import stream
from symcore.treatments import WAsymmetric

PAPER = WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1, 1, 0.5, 0.25))


def paper_mlp() -> torch.nn.Module:
    return MLPSpec(width=512, depth=3).build((28, 28), 10)


def resnet(depth: int, width: float) -> torch.nn.Module:
    return ResNetSpec(depth=depth, width=width).build((3, 32, 32), 10)


@given(st.integers(1, 40), st.sampled_from([(), (1, 1), (2, 2), (3, 3)]), st.data())
def test_rows_have_exactly_n_fix_zeros_and_differ_wherever_that_is_possible(rows, kernel, data):
    inputs, form = data.draw(st.integers(1, 12)), data.draw(st.sampled_from(["entry", "filter"]))
    shape = (rows, inputs, *kernel)
    choices = inputs if form == "filter" else inputs * math.prod(kernel)
    n_fix = data.draw(st.integers(0, choices))
    layer = MaskedLayer("layer", shape, n_fix, 1.0, form)
    drawn = mask(layer, stream(data.draw(st.integers(0, 9)), "test"))
    assert drawn.shape == shape
    assert ((~drawn).flatten(1).sum(1) == n_fix * math.prod(shape[1:]) // choices).all()
    distinct = len(np.unique(drawn.flatten(1).numpy(), axis=0))
    if math.comb(choices, n_fix) >= rows:
        assert distinct == rows
    if form == "filter":  # a filter is fixed as a whole or not at all
        of_filter = drawn.flatten(2) if kernel else drawn.unsqueeze(2)
        assert (of_filter.all(2) == of_filter.any(2)).all()


def test_every_subset_of_columns_is_equally_likely():
    layer = MaskedLayer("layer", (3, 5), 2, kappa=1.0)
    counts = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for seed in range(2000):
        for row in mask(layer, stream(seed, "test")):
            counts[tuple(np.flatnonzero(~row.numpy()).tolist())] += 1
    expected = 2000 * 3 / 10
    chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_square < 27.9  # 99.9% point of chi-square with 9 degrees of freedom


def test_the_papers_parameter_counts():
    network = paper_mlp()
    assert asymmetry.trainable_count(network, None) == 935_434
    assert asymmetry.trainable_count(network, asymmetry.draw(network, PAPER, 0)) == 834_570


@pytest.mark.parametrize(("width", "trainable"), [(1, 230_026), (8, 16_273_946)])
def test_the_papers_counts_for_resnet20_which_are_the_defaults(width, trainable):
    """Appendix E.1's table of n_fix; for width 1 the paper prints 230,024, which its own code does not give."""
    network, times = resnet(20, width), 3 if width == 8 else 1
    stages = [36] * 6 + [54, 54, 6, 54, 54, 54, 54] + [72, 72, 8, 72, 72, 72, 72]
    n_fix = (min(27, 12 * times), *(n * times for n in stages), 8 * times)
    layers = asymmetry.layers(asymmetry.weight_matrices(network), WAsymmetric())
    assert tuple(layer.n_fix for layer in layers) == n_fix
    assert {layer.kappa for layer in layers} == {2}
    drawn = asymmetry.draw(network, WAsymmetric(n_fix=n_fix), 0)
    assert asymmetry.trainable_count(network, drawn) == trainable


def test_the_papers_count_for_resnet8_with_whole_filters_fixed():
    """The metanetworks' inputs (Table 3): 8 filters in every row, of which the first convolution has but 3."""
    network, form = resnet(8, 1), "filter"
    drawn = asymmetry.draw(network, WAsymmetric(form=form, n_fix=(3, *[8] * 9)), 0)
    assert asymmetry.trainable_count(network, drawn) == 60_634
    assert not drawn.trainable["conv.weight"].any()
    with pytest.raises(ValueError, match=r"n_fix: 8 for conv\.weight is more than its 3 input .* 0 to 3"):
        asymmetry.draw(network, WAsymmetric(form=form, n_fix=(8,) * 10), 0)


@pytest.mark.parametrize("width", [0.25, 0.875, 2, 4])
@pytest.mark.parametrize("shape", [(3, 32, 32), (8, 8)])
def test_whole_filters_fix_about_as_much_as_single_entries_by_default(width, shape):
    network = ResNetSpec(depth=8, width=width).build(shape, 10)
    entries, filters = (
        asymmetry.layers(asymmetry.weight_matrices(network), WAsymmetric(form=form))
        for form in ("entry", "filter")
    )
    for one, other in list(zip(entries, filters, strict=True))[1:]:
        assert other.n_fix / other.choices == pytest.approx(one.n_fix / one.choices, abs=1 / other.choices)
        assert 0 < one.n_fix / one.choices <= 0.5


def test_default_n_fix_and_kappa_on_digits_at_width_128():
    layers = asymmetry.layers(asymmetry.weight_matrices(MLPSpec().build((8, 8), 10)), WAsymmetric())
    assert [layer.n_fix for layer in layers] == [8, 16, 16, 64]
    assert [layer.kappa for layer in layers] == [1, 1, 0.5, 0.25]


def test_a_narrow_network_still_gets_a_fixed_weight_in_every_row():
    layers = asymmetry.layers(asymmetry.weight_matrices(MLPSpec(width=4).build((8, 8), 10)), WAsymmetric())
    assert [layer.n_fix for layer in layers] == [8, 1, 1, 2]


def zeros(network: torch.nn.Module, form: str = "entry") -> list[tuple[int, str]]:
    """`n_fix` and form of each layer where kappa is 0 and neither is given."""
    matrices = asymmetry.weight_matrices(network)
    settled = asymmetry.layers(matrices, WAsymmetric(form=form, kappa=(0,) * len(matrices)))
    return [(layer.n_fix, layer.form) for layer in settled]


def test_zeros_of_the_wide_resnet20_leave_some_of_the_first_convolution():
    """Buergin et al. 2026: 4 * 3 of 27; all else as the paper has it with constants."""
    network = resnet(20, 8)
    with_constants = asymmetry.layers(asymmetry.weight_matrices(network), WAsymmetric())
    assert with_constants[0].n_fix == 27
    assert zeros(network) == [(12, "entry"), *((layer.n_fix, "entry") for layer in with_constants[1:])]


def test_zeros_are_single_weights_where_filters_are_too_few_and_none_of_a_shortcut_where_these_are():
    assert zeros(resnet(8, 1), "filter") == [
        (12, "entry"),
        *((n, "filter") for n in (4, 4, 6, 6, 6, 8, 8, 8, 8)),
    ]
    narrow = zeros(resnet(8, 0.25), "filter")
    assert (narrow[0], narrow[3], narrow[5]) == ((3, "entry"), (14, "entry"), (0, "filter"))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 128])
def test_zeros_keep_the_defaults_that_tell_rows_apart_and_else_take_the_nearest(width):
    network = MLPSpec(width=width).build((8, 8), 10)
    given = asymmetry.layers(asymmetry.weight_matrices(network), WAsymmetric())
    for layer, (n_fix, _) in list(zip(given, zeros(network), strict=True))[:-1]:
        nearer = [n for n in range(layer.choices) if abs(n - layer.n_fix) < abs(n_fix - layer.n_fix)]
        assert math.comb(layer.choices, n_fix) >= layer.rows
        assert not any(math.comb(layer.choices, n) >= layer.rows for n in nearer)


def test_zeros_that_cannot_tell_rows_apart_are_refused_with_what_can():
    wide = ResNetSpec(depth=8, width=8).build((8, 8), 10)
    with pytest.raises(ValueError, match=r"128 rows of conv\.weight .* accepted: at most 126 rows, or kappa"):
        zeros(wide)
    matrices = asymmetry.weight_matrices(resnet(8, 0.25))
    numbers, kappa = [3, 9, 9, 14, 14, 2, 18, 18, 2, 2], (0,) * 10
    with pytest.raises(
        ValueError, match=r"2 of 4 .* 6 ways.*shortcut.*accepted: 0, at most 6 rows, or kappa"
    ):
        asymmetry.layers(matrices, WAsymmetric(n_fix=tuple(numbers), kappa=kappa))
    numbers[5] = 0
    numbers[2] = 0
    with pytest.raises(ValueError, match=r"conv2\.weight apart .* accepted: 1 to 35, or kappa above 0"):
        asymmetry.layers(matrices, WAsymmetric(n_fix=tuple(numbers), kappa=kappa))
    numbers[2] = 1
    assert asymmetry.layers(matrices, WAsymmetric(n_fix=tuple(numbers), kappa=kappa))[5].n_fix == 0


def test_fixed_weights_have_standard_deviation_kappa_and_stand_only_where_d_is_zero():
    for network, kappas in ((paper_mlp(), PAPER.kappa), (resnet(8, 4), (2,) * 10)):
        drawn = asymmetry.draw(network, WAsymmetric(kappa=kappas), 0)
        for (name, fixed), kappa in zip(drawn.fixed.items(), kappas, strict=True):
            constants = fixed[~drawn.trainable[name]]
            assert constants.std().item() == pytest.approx(kappa, rel=4 / len(constants) ** 0.5)
            assert (fixed[drawn.trainable[name]] == 0).all()


def test_one_seed_gives_one_asymmetry_and_another_seed_another():
    first, again, other = (
        asymmetry.draw(paper_mlp(), PAPER, seed).fixed["readout.weight"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


SMALL = {
    "mlp": MLPSpec(width=16).build((8, 8), 10),
    "resnet": ResNetSpec(depth=8, width=0.25).build((8, 8), 10),
}


@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_members_are_chosen_from_a_stack_and_share_what_is_shared(network):
    each = [asymmetry.draw(network, WAsymmetric(), seed) for seed in range(3)]
    stack, raw = asymmetry.stack(each), {name: torch.ones_like(p) for name, p in network.named_parameters()}
    several = {name: w.expand(2, *w.shape) for name, w in raw.items()}
    chosen, shared = stack.select([2, 0]).apply(several), each[1].select([2, 0]).apply(several)
    for place, member in enumerate((2, 0)):
        assert all(torch.equal(chosen[name][place], w) for name, w in each[member].apply(raw).items())
        assert all(torch.equal(shared[name][place], w) for name, w in each[1].apply(raw).items())
    assert asymmetry.trainable_count(network, stack) == asymmetry.trainable_count(network, each[0])


@pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)
def test_raw_weights_come_back_from_effective_ones(network):
    drawn = asymmetry.draw(network, WAsymmetric(), 0)
    raw = {name: p.detach() for name, p in network.named_parameters()}
    back = drawn.raw(drawn.apply(raw))
    for name, w in raw.items():
        assert torch.equal(back[name], w * drawn.trainable[name] if name in drawn.trainable else w)


def test_a_bound_network_computes_with_effective_weights_and_trains_only_what_d_leaves():
    network = MLPSpec(width=16).build((8, 8), 10)
    drawn = asymmetry.draw(network, WAsymmetric(), 0)
    raw = {name: p.detach().clone() for name, p in network.named_parameters()}
    x = torch.rand(5, 8, 8)
    expected = torch.func.functional_call(network, drawn.apply(raw), (x,))
    asymmetry.bind(network, drawn)
    assert torch.equal(network(x), expected)
    network(x).square().sum().backward()
    gradient = network.readout.parametrizations.weight.original.grad
    assert (gradient[~drawn.trainable["readout.weight"]] == 0).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("treatment", "words"),
    [
        (WAsymmetric(n_fix=(8, 16, 16)), ["n_fix", "[8, 16, 16]", "4 weight matrices"]),
        (WAsymmetric(n_fix=(8, 16, 200, 64)), ["n_fix", "200", "hidden.2.linear.weight", "0 to 128"]),
        (WAsymmetric(kappa=(1.0,)), ["kappa", "[1.0]", "4 weight matrices"]),
        (WAsymmetric(n_fix=(1, 16, 16, 64), kappa=(0, 1, 1, 1)), ["n_fix", "1 of 64", "kappa above 0"]),
        (WAsymmetric(n_fix=(0, 16, 16, 64), kappa=(0, 1, 1, 1)), ["n_fix", "0 of 64", "kappa above 0"]),
    ],
)
def test_what_does_not_fit_is_refused_by_field_value_and_what_is_accepted(treatment, words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        asymmetry.draw(MLPSpec().build((8, 8), 10), treatment, 0)
    assert all(word in str(caught.value) for word in words)


def test_a_wholly_fixed_layer_needs_kappa_above_zero():
    network = MLPSpec(width=8, depth=1).build((4,), 3)
    drawn = asymmetry.draw(network, WAsymmetric(n_fix=(4, 4), kappa=(1, 1)), 0)
    assert not drawn.trainable["hidden.0.linear.weight"].any()
    with pytest.raises(ValueError, match="kappa above 0"):
        asymmetry.draw(network, WAsymmetric(n_fix=(4, 4), kappa=(0, 1)), 0)
