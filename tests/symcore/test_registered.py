"""A person's own module works like the lab's networks, and what cannot work is refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from symcore.align.weights import match
from symcore.data import sources
from symcore.figlu import ACTIVATIONS, FiGLU
from symcore.landscape.planes import random_plane
from symcore.landscape.surfaces import evaluate
from symcore.metrics import Evaluator
from symcore.networks import registered
from symcore.networks.batchnorm import batch_norms
from symcore.networks.checks import NetworkError
from symcore.networks.recurrent import RecurrentSpec
from symcore.networks.registered import RegisteredSpec
from symcore.networks.registry import NetworkSpec, register
from symcore.population import Design, Population, build, forward, load, save
from symcore.settings import STORED
from symcore.symmetry import permutations
from symcore.symmetry.inspector import changes
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

TREATMENTS = [Standard(), WAsymmetric(), SigmaAsymmetric(std=1)]


class Skip(nn.Module):
    """An MLP whose second hidden layer is added to its first, so that both share one order of neurons."""

    def __init__(self, inputs: int, classes: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.activation1, self.activation2 = nn.GELU(), nn.GELU()
        self.readout = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation1(self.first(x.flatten(1)))
        logits: Tensor = self.readout(h + self.activation2(self.second(h)))
        return logits


class Pooled(nn.Module):
    """A small convolutional network with pooling."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.activation1, self.activation2, self.pool = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)
        self.readout = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.activation1(self.conv1(x.unsqueeze(1))))
        logits: Tensor = self.readout(self.activation2(self.conv2(x)).mean((2, 3)))
        return logits


class LeNet(nn.Module):
    """A small convolutional network that flattens its maps."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
        self.linear, self.readout = nn.Linear(6 * 2 * 2, 12), nn.Linear(12, classes)
        self.pool = nn.AvgPool2d(2)
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.activations
        x = self.pool(first(self.conv1(x.unsqueeze(1))))
        logits: Tensor = self.readout(third(self.linear(second(self.conv2(x)).flatten(1))))
        return logits


class Mobile(nn.Module):
    """A separable convolution with torch's BatchNorm, a padding, a dropout and activations of several kinds."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.norm1, self.act1 = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Hardswish()
        self.pad, self.up = nn.ReflectionPad2d(1), nn.Upsample(scale_factor=2)
        self.depthwise, self.norm2, self.act2 = nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.PReLU(4)
        self.pointwise, self.act3 = nn.Conv2d(4, 6, 1), nn.ReLU6()
        self.norm3, self.dropout, self.readout = nn.RMSNorm(6), nn.Dropout(0.5), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.conv(x.unsqueeze(1))))
        x = self.act2(self.norm2(self.depthwise(self.up(self.pad(x)))))
        x = self.act3(self.pointwise(x)).mean((2, 3))
        logits: Tensor = self.readout(self.dropout(self.norm3(x)))
        return logits


def lenet(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    assert input_shape == (8, 8)
    return LeNet(classes)


def skip(input_shape: tuple[int, ...], classes: int, *, width: int = 12) -> nn.Module:
    return Skip(int(np.prod(input_shape)), classes, width)


def pooled(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    assert len(input_shape) == 2
    return Pooled(classes)


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of one test."""
    monkeypatch.setattr(registered, "_registrations", {})
    monkeypatch.setattr(registered, "_imported", set())
    registered._checked.cache_clear()
    register("skip", skip, title="MLP with a skip")
    register("pooled", pooled)
    register("lenet", lenet)
    register("mobile", lambda _shape, classes: Mobile(classes))


SKIP, POOLED, LENET, MOBILE = (
    {"kind": "registered", "name": "skip", "settings": {"width": 10}},
    {"kind": "registered", "name": "pooled"},
    {"kind": "registered", "name": "lenet"},
    {"kind": "registered", "name": "mobile"},
)
SIZES = {"skip": [10], "pooled": [6, 8], "lenet": [4, 6, 12], "mobile": [4, 6]}
NETWORK: TypeAdapter[NetworkSpec] = TypeAdapter(NetworkSpec)


def design(network: dict[str, object], treatment: Treatment, seeds: tuple[int, ...] = (0,)) -> Design:
    return Design(NETWORK.validate_python(network), treatment, (8, 8), 10, seeds)


@pytest.mark.parametrize("network", [SKIP, POOLED, LENET, MOBILE], ids=["skip", "pooled", "lenet", "mobile"])
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_the_inspector_sees_its_symmetries_and_their_loss(
    network: dict[str, object], treatment: Treatment
) -> None:
    found = changes(build(design(network, treatment)), draws=4, probes=16, seed=0)
    largest = max(found["permutation"].max(), found["swap"].max())
    assert largest < 1e-10 if isinstance(treatment, Standard) else largest > 0.01


@pytest.mark.parametrize("network", [SKIP, POOLED, LENET, MOBILE], ids=["skip", "pooled", "lenet", "mobile"])
def test_alignment_undoes_a_permutation_of_it(network: dict[str, object]) -> None:
    population = build(design(network, Standard(), (0, 1)))
    example = torch.zeros(2, 8, 8)
    spec = permutations.derive(population.network, example)
    assert [group.size for group in spec.groups] == SIZES[str(network["name"])]
    drawn = permutations.random(spec, np.random.default_rng(0), 2)
    a = population.effective()
    b = permutations.permute(a, spec, drawn)
    found = match(population.network, a, b, example)
    undone = permutations.permute(b, spec, found.permutations)
    assert all(torch.equal(undone[name], a[name]) for name in a)


@pytest.mark.parametrize("network", [SKIP, POOLED, LENET, MOBILE], ids=["skip", "pooled", "lenet", "mobile"])
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_its_surfaces_are_its_losses(network: dict[str, object], treatment: Treatment) -> None:
    population = build(design(network, treatment))
    evaluator = Evaluator(population.network, sources.load("digits", Path()))
    plane = random_plane({name: w[0] for name, w in population.effective().items()}, seed=1, trainable=None)
    xs, ys = np.array([0.0, 0.5]), np.array([0.0, -1.0])
    surface = evaluate(evaluator, plane, population.buffers, "test", xs, ys)
    loss, _ = evaluator(plane.at(xs, ys), population.buffers, "test")
    np.testing.assert_allclose(surface.loss, loss, rtol=1e-4)


def test_checking_a_network_leaves_the_random_numbers_of_its_seed() -> None:
    first = build(design(SKIP, Standard(), (5,)))
    again = build(design(SKIP, Standard(), (5,)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    registered._checked.cache_clear()
    torch.manual_seed(3)
    design(POOLED, Standard()).network.build((8, 8), 10)
    torch.manual_seed(3)
    assert torch.rand(1) == expected
    assert all(torch.equal(w, again.parameters[name]) for name, w in first.parameters.items())


def test_saved_networks_come_back_and_those_of_other_code_do_not(tmp_path: Path) -> None:
    network = NETWORK.validate_python(SKIP)
    assert isinstance(network, RegisteredSpec)
    population = build(Design(network.pinned(), WAsymmetric(), (8, 8), 10, (1, 2)))
    save(population, tmp_path / "weights")
    x = torch.randn(4, 8, 8)
    assert torch.equal(forward(load(tmp_path / "weights"), x), forward(population, x))
    registered._registrations["skip"] = registered.Registration(skip, "", "0" * 16)
    with pytest.raises(ValidationError, match=r"is not the code .* accepted: 0000000000000000"):
        load(tmp_path / "weights")


OWN = """
from torch import nn
from symcore.networks.registry import register

def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.ReLU(), nn.Linear({width}, classes))

register("own", build)
"""


def own(path: Path, monkeypatch: pytest.MonkeyPatch, width: int = 8) -> None:
    """Names a file with a network in the environment, as a fresh process sees it."""
    path.write_text(OWN.format(width=width))
    monkeypatch.setenv(registered.VARIABLE, f" {path}, ")
    monkeypatch.setattr(registered, "_registrations", {})
    monkeypatch.setattr(registered, "_imported", set())


def test_networks_come_from_the_files_and_modules_that_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(tmp_path / "a.py", monkeypatch)
    assert list(registered.registered()) == ["own"]
    (tmp_path / "nets_of_a_test.py").write_text(OWN.replace('"own"', '"other"').format(width=4))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(registered.VARIABLE, f"{tmp_path / 'a.py'},nets_of_a_test")
    assert list(registered.registered()) == ["own", "other"]


def test_other_code_makes_another_spec_and_the_same_code_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []
    for width in (8, 9, 8):
        own(tmp_path / "a.py", monkeypatch, width)
        codes.append(RegisteredSpec(name="own").pinned().code)
    assert codes[0] == codes[2] != codes[1]


def test_two_files_cannot_take_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path / "a.py", monkeypatch)
    (tmp_path / "b.py").write_text(OWN.format(width=8))
    monkeypatch.setenv(registered.VARIABLE, f"{tmp_path / 'a.py'},{tmp_path / 'b.py'}")
    with pytest.raises(
        NetworkError, match=r"b\.py cannot be imported .* 'own' is registered by .*a\.py already"
    ):
        registered.registered()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {},
            r"'' is not registered; accepted: skip, pooled, lenet, mobile \(SYMLAB_NETWORKS names no file\)",
        ),
        ({"name": "skipp"}, "'skipp' is not registered; accepted: skip, pooled"),
        (
            {"name": "skip", "settings": {"depth": 3}},
            r"'depth'; accepted: arguments of skip\(.*width: 'int' = 12",
        ),
        ({"name": "skip", "code": "beef"}, "'beef' is not the code"),
    ],
)
def test_a_wrong_spec_says_what_is_accepted(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RegisteredSpec.model_validate(given)
    stored = RegisteredSpec.model_validate(given, context=STORED)
    assert stored.name == given.get("name", "")


def test_flags_are_read_as_numbers_where_they_are() -> None:
    given = {"width": "8", "slope": "0.5", "wide": "true", "title": "a b", "code": '"8"'}
    settings = RegisteredSpec.model_validate({"name": "x", "settings": given}, context=STORED).settings
    assert settings == {"width": 8, "slope": 0.5, "wide": True, "title": "a b", "code": '"8"'}


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    monkeypatch.setenv(registered.VARIABLE, str(path))
    with pytest.raises(
        ValidationError, match=rf"{re.escape(str(path))} cannot be imported \(ZeroDivisionError"
    ):
        RegisteredSpec(name="own")
    assert registered.title("own") == "own"


def mlp(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *middle, nn.ReLU(), nn.Linear(8, 10))


class Held(nn.Module):
    """Computes with a module's outputs, by a function that is given."""

    def __init__(self, inner: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)


def twice(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1)


class Read(nn.Module):
    """torch's own recurrent layer, whose gates share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.readout = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.gru(x)[0].mean(1))
        return logits


class Heads(nn.Module):
    """torch's own attention, whose queries, keys and values share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.readout = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.attention(x, x, x)[0].mean(1))
        return logits


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no module": (lambda: 3, "build gave int; accepted: a torch.nn.Module"),
    "no parameters": (nn.Flatten, "accepted: a torch.nn.Module with parameters"),
    "constructor": (lambda: nn.Linear(2, "x"), "it cannot be built: TypeError"),
    "inputs": (lambda: nn.Linear(3, 10), r"it cannot be called with inputs \[3, 8, 8\]"),
    "outputs": (lambda: nn.Linear(8, 10), r"give \[3, 8, 10\]; accepted: logits \[3, 10\]"),
    "batch norm without weights": (
        lambda: mlp(nn.BatchNorm1d(8, affine=False)),
        "changes its buffers 2.running_mean, .*with weights and eps 1e-05.*LayerNorm, RMSNorm, GroupNorm",
    ),
    "batch norm of another epsilon": (
        lambda: mlp(nn.BatchNorm1d(8, eps=1e-3)),
        "changes its buffers 2.running_mean",
    ),
    "batch norm called twice": (
        lambda: mlp(*[nn.BatchNorm1d(8)] * 2),
        "a call passes BatchNorm 2 not once; accepted: a BatchNorm of its own for each place",
    ),
    "dropout": (
        lambda: Held(mlp(), nn.functional.dropout),
        "gives other outputs for the same inputs, as with dropout; .* takes out modules of nn.Dropout",
    ),
    "gru": (Read, "cannot be read off its graph .*own-networks.*aten.gru.* has no rule"),
    "heads": (Heads, "cannot be read off its graph .* in attention takes some of neurons"),
    "joined": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Held(nn.ReLU(), twice), nn.Linear(16, 10)),
        "cannot be read off its graph .*aten.cat.* joins neurons that can be permuted: axis 0 of 1.weight",
    ),
    "batch": (lambda: Held(mlp(), lambda y: y - y.mean(0)), "depend on the others in its batch"),
    "values": (lambda: Held(mlp(), lambda y: y * float(y.detach().numpy().shape[1])), "device 'meta'"),
    "flatten": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 4, 3),
            Held(nn.Identity(), channels_last),
            nn.Linear(144, 10),
        ),
        "cannot be read off its graph .*: DerivationError: aten.flatten.* splits or merges neurons .* channels before positions",
    ),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes self.gru:UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_lab_cannot_work_with_is_refused_with_the_reason(case: str) -> None:
    made, words = REFUSED[case]
    register(case, lambda _shape, _classes: made())
    with pytest.raises(NetworkError, match=words):
        RegisteredSpec(name=case).build((8, 8), 10)


def test_torchs_batch_norm_becomes_the_labs_and_dropout_nothing() -> None:
    torch.manual_seed(0)
    given = Mobile(10)
    torch.manual_seed(0)
    network = NETWORK.validate_python(MOBILE).build((8, 8), 10)
    assert batch_norms(network) == ["norm1", "norm2"]
    assert not dict(network.named_buffers())
    assert {n: p.shape for n, p in network.named_parameters()} == {
        n: p.shape for n, p in given.named_parameters()
    }
    assert all(torch.equal(p, network.get_parameter(n)) for n, p in given.named_parameters())
    x = torch.randn(16, 8, 8)
    given.dropout.eval()
    torch.testing.assert_close(network(x), given(x))


class Called(nn.Module):
    """An MLP of two hidden layers with activations of choice, whose second may be added to the first."""

    def __init__(self, first: nn.Module, second: Callable[[Tensor], Tensor], *, sums: bool = False) -> None:
        super().__init__()
        self.one, self.two, self.readout = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)
        self.first, self.second, self.sums = first, second, sums

    def forward(self, x: Tensor) -> Tensor:
        """Logits; what bends inputs and outputs is no hidden activation."""
        x = self.first(self.one(torch.tanh(x.flatten(1))))
        hidden = self.second(self.two(x))
        return torch.relu(self.readout(x + hidden if self.sums else hidden))


def gated(made: Callable[[], nn.Module]) -> Population:
    register("called", lambda _shape, _classes: made())
    return build(design({"kind": "registered", "name": "called"}, SigmaAsymmetric(std=1), (0, 1)))


def every_activation() -> nn.Module:
    kinds = [kind(*((0.1, 0) if kind is nn.Threshold else ())) for kind in ACTIVATIONS]
    hidden = [layer for kind in kinds for layer in (kind, nn.Linear(8, 8))]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *hidden[:-1], nn.Linear(8, 10))


def test_figlu_takes_the_place_of_every_elementwise_activation() -> None:
    population = gated(every_activation)
    modules = list(population.network)
    assert len([m for m in modules if isinstance(m, FiGLU)]) == len(ACTIVATIONS)
    assert {type(m) for m in modules} == {nn.Flatten, nn.Linear, FiGLU}
    assert not permutations.derive(population.network, torch.zeros(2, 8, 8)).groups
    assert population.parameters.keys() == dict(population.network.named_parameters()).keys()
    assert all(len(p) == 2 for p in population.parameters.values())


SHARED = nn.ReLU()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda: Called(nn.ReLU(), nn.functional.silu),
            "^aten.silu in the network itself: hidden .* of ReLU, GELU",
        ),
        (
            lambda: Called(nn.ReLU(), nn.functional.relu, sums=True),
            "^aten.relu in the network itself: hidden activations that FiGLU cannot take the place of",
        ),
        (lambda: Called(SHARED, SHARED), "^aten.relu in second: hidden .* a second name"),
        (
            lambda: Called(nn.ReLU(), nn.Identity()),
            r"^two \(8 neurons\): neurons that can still change places",
        ),
    ],
    ids=["function", "function on a stream", "second name", "linear layer"],
)
def test_a_network_that_figlu_gates_only_in_part_is_refused(
    made: Callable[[], nn.Module], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gated(made)


def test_a_recurrent_cell_of_ones_own_says_where_its_gate_goes() -> None:
    population = gated(lambda: RecurrentSpec(cell="gru", width=6).build((8, 8), 10))
    assert [n for n, m in population.network.named_modules() if isinstance(m, FiGLU)] == ["cell.bend"]


def test_weights_made_with_fewer_gates_are_not_loaded(tmp_path: Path) -> None:
    population = gated(lambda: Called(nn.ReLU(), nn.Tanh()))
    fewer = {name: b for name, b in population.buffers.items() if name != "second.fixed"}
    save(replace(population, buffers=fewer), tmp_path / "weights")
    with pytest.raises(ValueError, match=r"differ in the buffers second\.fixed"):
        load(tmp_path / "weights")
