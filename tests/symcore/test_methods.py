"""Every method of alignment by its one verb: what was planted is found, barriers fall, and nothing is left to chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from symcore.align import matching
from symcore.align.activations import ActivationMatching
from symcore.align.cycle import CycleConsistent
from symcore.align.learning import LOOK, Lines
from symcore.align.matching import Matching, Networks, Watch
from symcore.align.sinkhorn import Sinkhorn, sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.align.weights import WeightMatching
from symcore.checkpoints import StoppedError
from symcore.data import sources
from symcore.data.sources import Dataset
from symcore.networks.mlp import MLPSpec
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, Population, build
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.training import Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard

FORMS: dict[str, Any] = {
    "mlp": MLPSpec(width=16, depth=2),
    "resnet": ResNetSpec(depth=8, width=0.25),
    "recurrent": RecurrentSpec(width=12),
}
METHODS: dict[str, Any] = {
    "weights": WeightMatching(),
    "activations": ActivationMatching(),
    "products": ActivationMatching(similarity="product"),
    "straight through": StraightThrough(steps=30),
    "sinkhorn, random": Sinkhorn(steps=150),
    "sinkhorn, midpoint": Sinkhorn(steps=100, objective="midpoint"),
    "sinkhorn, distance": Sinkhorn(steps=100, objective="distance"),
    "cycle": CycleConsistent(),
}
PAIRS = ((0, 1), (1, 2), (0, 2))
PROBE = torch.zeros(2, 8, 8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return sources.load("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> dict[str, Population]:
    """Three networks of each form, trained for a while."""
    return {
        name: fit(
            Trainer(
                build(Design(form, Standard(), (8, 8), 10, (0, 1, 2))),
                digits,
                TrainingSpec(epochs=2 if name == "resnet" else 8, learning_rate=3e-3),
            )
        )
        for name, form in FORMS.items()
    }


def networks(population: Population) -> Networks:
    return Networks(population.network, population.effective(), PAIRS, PROBE)


def permuted_copies(population: Population, seed: int = 0) -> tuple[Networks, dict[str, Tensor]]:
    """A network and two permuted copies of it, and what brings each pair's second to its first."""
    spec = symmetry.derive(population.network, PROBE)
    one = {name: w[:1].repeat(3, *[1] * (w.ndim - 1)) for name, w in population.effective().items()}
    planted = symmetry.random(spec, stream(seed, "test"), 3)
    found = [
        symmetry.compose(
            symmetry.invert({n: p[b] for n, p in planted.items()}), {n: p[a] for n, p in planted.items()}
        )
        for a, b in PAIRS
    ]
    undone = {name: torch.stack([one[name] for one in found]) for name in planted}
    return Networks(population.network, symmetry.permute(one, spec, planted), PAIRS, PROBE), undone


def matched(method: Any, some: Networks, digits: Dataset, seed: int = 0, **watch: Any) -> Matching:
    result: Matching = method.match(some, digits, seed=seed, watch=Watch(**watch))
    return result


def halfway(some: Networks, digits: Dataset, found: Matching | None) -> Tensor:
    """Training loss at every pair's midpoint, [pair]."""
    lines = Lines(some.form, some.a, digits, number=10_000, batch=64, seed=0)
    if found is None:
        return lines.halfway(some.b)
    return lines.halfway(symmetry.permute(some.b, found.spec, found.permutations, found.signs))


def same(one: Matching, other: Matching) -> bool:
    pairs = [(one.permutations, other.permutations), (one.signs, other.signs)]
    return all(torch.equal(p, theirs[n]) for own, theirs in pairs for n, p in own.items())


def slow_unless(fast: bool, *values: str) -> Any:
    return pytest.param(*values, marks=() if fast else pytest.mark.slow)


LEARNED = ("straight through", "sinkhorn, random", "sinkhorn, midpoint")
CASES = [
    slow_unless(form == "mlp" or method not in LEARNED, method, form) for method in METHODS for form in FORMS
]


@pytest.mark.parametrize(
    ("method", "form"), [(m, f) for m in METHODS for f in FORMS if f == "mlp" or m not in LEARNED]
)
def test_a_permuted_copy_is_recognised(
    method: str, form: str, trained: dict[str, Population], digits: Dataset
) -> None:
    some, undone = permuted_copies(trained[form])
    found = matched(METHODS[method], some, digits)
    for name, permutation in found.permutations.items():
        assert torch.equal(permutation, undone[name])


@pytest.mark.parametrize(("method", "form"), CASES)
def test_the_loss_halfway_between_independent_networks_falls(
    method: str, form: str, trained: dict[str, Population], digits: Dataset
) -> None:
    some = networks(trained[form])
    found = matched(METHODS[method], some, digits)
    assert halfway(some, digits, found).mean() < halfway(some, digits, None).mean()
    assert (found.objective > found.identity_objective).all()


def test_what_is_learned_is_never_worse_than_where_it_started(
    trained: dict[str, Population], digits: Dataset
) -> None:
    """Straight-through estimation starts at weight matching, Sinkhorn re-basin at the identity."""
    some = networks(trained["mlp"])
    by_weights = halfway(some, digits, matched(WeightMatching(), some, digits, seed=3))
    for method, start in (
        (StraightThrough(steps=LOOK), by_weights),
        (StraightThrough(steps=LOOK, learning_rate=1), by_weights),  # so fast that it learns nothing
        (Sinkhorn(steps=LOOK, learning_rate=1e-6), halfway(some, digits, None)),
    ):
        looks: list[tuple[int, Tensor]] = []
        found = matched(method, some, digits, seed=3, on_look=lambda _pair, step, x: looks.append((step, x)))  # noqa: B023
        assert [step for step, _ in looks] == [0, LOOK]
        assert torch.equal(looks[0][1], start)
        reached = halfway(some, digits, found)
        assert torch.equal(reached, torch.minimum(*(loss for _, loss in looks)))
        assert torch.equal(found.sweeps, torch.where(looks[1][1] < start, LOOK, 0))


def test_every_cycle_closes_between_pairs(trained: dict[str, Population], digits: Dataset) -> None:
    """P_ac is P_bc and then P_ab; methods that match each pair on its own do not keep that."""
    some = networks(trained["mlp"])

    def closes(found: Matching) -> bool:
        (ab, bc, ac) = ({n: p[pair] for n, p in found.permutations.items()} for pair in range(3))
        return all(torch.equal(p, ac[n]) for n, p in symmetry.compose(bc, ab).items())

    assert closes(matched(CycleConsistent(), some, digits))
    assert not closes(matched(WeightMatching(), some, digits))


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_says_it_all(method: str, trained: dict[str, Population], digits: Dataset) -> None:
    some = networks(trained["mlp"])
    short = (
        METHODS[method].model_copy(update={"steps": 5})
        if "steps" in type(METHODS[method]).model_fields
        else METHODS[method]
    )
    assert same(matched(short, some, digits, seed=5), matched(short, some, digits, seed=5))


def test_pairs_that_do_not_fit_together_are_matched_in_parts(
    trained: dict[str, Population], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = networks(trained["mlp"])
    for method in (WeightMatching(restarts=2), ActivationMatching(), StraightThrough(steps=2)):
        together = matched(method, some, digits)
        with monkeypatch.context() as patched:
            patched.setattr(matching, "BYTES", {"cpu": 1})
            looks: list[tuple[int, int]] = []
            told: list[float] = []
            parts = matched(
                method,
                some,
                digits,
                on_look=lambda pair, step, _: looks.append((pair, step)),  # noqa: B023
                on_progress=lambda done, total, _: told.append(done / total),  # noqa: B023
            )
        assert same(together, parts)
        torch.testing.assert_close(together.objective, parts.objective)
        assert told == sorted(told)
        assert told[0] >= 0
        assert told[-1] <= 1
        assert not looks or looks == [(pair, step) for pair in range(3) for step in (0, 2)]


@pytest.mark.parametrize("method", [*METHODS.values(), WeightMatching(signs=False)], ids=repr)
def test_a_stop_is_obeyed(method: Any, trained: dict[str, Population], digits: Dataset) -> None:
    with pytest.raises(StoppedError):
        matched(method, networks(trained["mlp"]), digits, stopping=lambda: True)


def flipped_copies(population: Population) -> tuple[Networks, Tensor]:
    """Three networks, each paired with a copy of itself that is permuted and flipped; and their squared norms, [pair]."""
    spec = symmetry.derive(population.network, PROBE)
    some = networks(population)
    drawn = stream(1, "test")
    planted, signs = symmetry.random(spec, drawn, 3), symmetry.random_signs(spec, drawn, 3)
    copies = symmetry.permute(some.weights, spec, planted, signs)
    both = {name: torch.cat([w, copies[name]]) for name, w in some.weights.items()}
    norms = torch.stack([w.double().square().flatten(1).sum(1) for w in some.weights.values()]).sum(0)
    return replace(some, weights=both, pairs=((0, 3), (1, 4), (2, 5))), norms


@pytest.mark.parametrize(
    "method",
    [
        WeightMatching(),
        ActivationMatching(),
        StraightThrough(steps=1),
        CycleConsistent(),
        Sinkhorn(steps=100, objective="distance"),
        Sinkhorn(steps=100, objective="midpoint"),
    ],
    ids=repr,
)
def test_signs_are_found_where_neurons_have_them(
    method: Any, trained: dict[str, Population], digits: Dataset
) -> None:
    twins, own = flipped_copies(trained["recurrent"])
    torch.testing.assert_close(matched(method, twins, digits).objective, own)


@pytest.mark.parametrize("method", [WeightMatching, ActivationMatching, StraightThrough])
def test_signs_are_left_alone_where_told(
    method: Any, trained: dict[str, Population], digits: Dataset
) -> None:
    twins, own = flipped_copies(trained["recurrent"])
    steps = {"steps": 1} if method is StraightThrough else {}
    unsigned = matched(method(signs=False, **steps), twins, digits)
    assert (unsigned.objective < own - 1).all()
    assert not unsigned.signs


@pytest.mark.parametrize(("value", "pairs"), [(torch.nan, ((0, 1), (2, 0))), (-torch.inf, ((1, 0), (0, 2)))])
def test_weights_that_are_not_finite_are_named_before_any_method_begins(
    value: float, pairs: tuple[tuple[int, int], ...], trained: dict[str, Population]
) -> None:
    """And networks that are in no pair do not matter."""
    some = networks(trained["mlp"])
    weights = {name: w.clone() for name, w in some.weights.items()}
    last = list(weights)[-1]
    weights[last][2].view(-1)[0] = value
    side = "a" if pairs[1][0] == 2 else "b"
    with pytest.raises(ValueError, match=f"^{side}: {last} is not finite in pair 1; such weights cannot"):
        replace(some, weights=weights, pairs=pairs)
    assert replace(some, weights=weights, pairs=pairs[:1]).parameters == some.parameters


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_where_nothing_can_be_permuted_nothing_is(method: Any, digits: Dataset) -> None:
    sigma = build(Design(MLPSpec(width=8, depth=2), SigmaAsymmetric(), (8, 8), 10, (0, 1)))
    some = Networks(sigma.network, sigma.effective(), ((0, 1),), PROBE)
    found = matched(method, some, digits)
    assert found.permutations == {}
    assert torch.equal(found.objective, found.identity_objective)


def test_soft_permutations_are_doubly_stochastic_and_sharpen_to_hard_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 6, generator=draw, dtype=torch.float64)
    soft = sinkhorn(logits, 200)
    ones = torch.ones(3, 6, dtype=torch.float64)
    torch.testing.assert_close(soft.sum(1), ones)
    torch.testing.assert_close(soft.sum(2), ones)
    shifted = logits + torch.randn(3, 6, 1, generator=draw) + torch.randn(3, 1, 6, generator=draw)
    torch.testing.assert_close(sinkhorn(shifted, 200), soft)
    best = torch.tensor([linear_sum_assignment(x, maximize=True)[1].tolist() for x in logits.numpy()])
    assert torch.equal(sinkhorn(logits * 300, 20_000).argmax(2), best)


def test_the_derivative_of_soft_permutations_is_that_of_finite_differences() -> None:
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, 300), logits.requires_grad_())
