"""A graph's nodes train as one batch, neighbours count as their mean, and whatever is done in a population holds alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from symcore import asymmetry
from symcore.align import activations, repair, weights
from symcore.align.learning import Lines
from symcore.align.matching import Networks, Watch
from symcore.align.sinkhorn import Sinkhorn
from symcore.align.straight_through import StraightThrough
from symcore.combinations import combine
from symcore.data import sources
from symcore.data.nodes import OUTSIDE
from symcore.data.sources import Dataset, Split
from symcore.figlu import FiGLU, replace_activations
from symcore.landscape.curvature import Hessian
from symcore.landscape.paths import alphas, interpolate, linear_path
from symcore.landscape.surfaces import subset
from symcore.metrics import Evaluator
from symcore.networks.gnn import GNN, GNNSpec
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build, call_one
from symcore.propagation import Graph, graph_of, propagate
from symcore.randomness import stream
from symcore.symmetry import permutations as symmetry
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

NODES, FEATURES, CLASSES = 60, 9, 4
SMALL = GNNSpec(width=8, depth=2)
TREATMENTS: list[Treatment] = [Standard(), WAsymmetric(), SigmaAsymmetric()]
SPEC = TrainingSpec(epochs=12, learning_rate=1e-2, weight_decay=0.1, warmup_epochs=5, warmup_shape="linear")


def dense(graph: Graph) -> Tensor:
    """S as a matrix."""
    nodes = len(graph.rows) - 1
    rows = torch.repeat_interleave(torch.arange(nodes), graph.rows.diff())
    matrix = torch.zeros(nodes, nodes)
    matrix[rows, graph.columns] = graph.values
    return matrix


def citations() -> Dataset:
    """A made-up graph whose neighbours mostly have one class; each node has the words of its class and others."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=NODES)
    alike = labels[:, None] == labels
    edges = np.argwhere(rng.random((NODES, NODES)) < np.where(alike, 0.15, 0.02)).T
    words = rng.random((NODES, FEATURES)) < 0.2 + 0.5 * (np.arange(FEATURES) % CLASSES == labels[:, None])
    features, order = torch.from_numpy(words.astype(np.uint8)), rng.permutation(NODES)

    def split(own: np.ndarray) -> Split:
        counted = np.full(NODES, OUTSIDE)
        counted[own] = labels[own]
        return Split(features, torch.from_numpy(counted))

    source = replace(sources.SOURCES["cora"], input_shape=(FEATURES,), classes=CLASSES, nodes=NODES)
    splits = {"train": split(order[:20]), "val": split(order[20:30]), "test": split(order[30:])}
    return Dataset(source, splits, graph_of(torch.from_numpy(edges), NODES))


DATA = citations()


def population(
    treatment: Treatment, seeds: tuple[int, ...] = (4, 8, 15), mask_seeds: tuple[int, ...] = (0,)
) -> Population:
    return build(Design(SMALL, treatment, (FEATURES,), CLASSES, seeds, mask_seeds))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_a_node_gets_its_own_and_the_mean_of_its_neighbours(edges: list[tuple[int, int]]) -> None:
    graph = graph_of(torch.tensor(edges, dtype=torch.int64).view(-1, 2).T, 7)
    x = torch.arange(14.0).view(7, 2)
    neighbours = [
        ({a for a, b in edges if b == node} | {b for a, b in edges if a == node}) - {node}
        for node in range(7)
    ]
    for node, own in enumerate(neighbours):
        others = sorted(own)
        mean = x[others].mean(0) if others else torch.zeros(2)
        torch.testing.assert_close(propagate(graph, x)[node], x[node] + mean)
    assert graph.edges == sum(map(len, neighbours)) // 2
    rows = torch.repeat_interleave(torch.arange(7), graph.rows.diff())
    assert torch.equal(dense(graph)[graph.columns, rows], graph.transposed)


def test_an_edge_to_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="edges: they name nodes 0 to 7; accepted: 0 to 6"):
        graph_of(torch.tensor([[0], [7]]), 7)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["member first", "member second", "member last"])
def test_the_product_and_its_gradients_are_those_of_the_matrix(place: int) -> None:
    """Under vmap, traced, and differentiated twice."""
    x, matrix = torch.randn(NODES, 3), dense(DATA.graph)
    many = torch.randn(5, NODES, 3).movedim(0, place)

    def one(x: Tensor) -> Tensor:
        return propagate(DATA.graph, x)

    def squares(x: Tensor) -> Tensor:
        return propagate(DATA.graph, x).pow(3).sum()

    expected = torch.einsum("ab,mbc->mac", matrix, many.movedim(place, 0))
    torch.testing.assert_close(vmap(one, place)(many), expected)
    torch.testing.assert_close(make_fx(vmap(one, place))(many)(many), expected)
    slope = 3 * torch.einsum("ab,mac->mbc", matrix, expected**2)
    torch.testing.assert_close(vmap(grad(squares), place)(many), slope, rtol=1e-4, atol=1e-4)
    curved = grad(lambda x: grad(squares)(x).pow(2).sum())(x)
    known = grad(lambda x: grad(lambda x: (matrix @ x).pow(3).sum())(x).pow(2).sum())(x)
    torch.testing.assert_close(curved, known, rtol=1e-4, atol=1e-3)


def by_hand(network: GNN, own: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network by its formula, with dense matrices and torch's own normalisation."""
    for layer in range(SMALL.depth):
        name = f"hidden.{layer}."
        x = nn.functional.linear(
            dense(DATA.graph).to(x) @ x, own[f"{name}nodes.weight"], own[f"{name}nodes.bias"]
        )
        x = nn.functional.batch_norm(
            x, None, None, own[f"{name}norm.weight"], own[f"{name}norm.bias"], training=True
        )
        gate = network.hidden[layer].activation
        x = (
            torch.sigmoid(x @ gate.get_buffer("fixed").T) * x
            if isinstance(gate, FiGLU)
            else nn.functional.gelu(x)
        )
    return nn.functional.linear(x, own["readout.weight"], own["readout.bias"])


def alone(start: Population, member: int, spec: TrainingSpec) -> dict[str, Tensor]:
    """One member through dense matrices, torch's AdamW and a linear warm-up; F + D * W in every forward."""
    one = start.select([member])
    network = SMALL.build((FEATURES,), CLASSES)
    if isinstance(one.design.treatment, SigmaAsymmetric):
        replace_activations(network, torch.zeros(2, FEATURES), None, one.design.mask_seeds[0])
    raw = {name: p[0].clone().requires_grad_() for name, p in one.parameters.items()}
    masks = (
        asymmetry.draw(network, one.design.treatment, one.design.mask_seeds[0])
        if isinstance(one.design.treatment, WAsymmetric)
        else None
    )
    optimiser = torch.optim.AdamW(raw.values(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / spec.warmup_epochs)
    )
    train = DATA.splits["train"]
    counted = train.labels >= 0
    for _ in range(spec.epochs):
        optimiser.zero_grad()
        logits = by_hand(network, masks.apply(raw) if masks else raw, train.images.float())
        nn.functional.cross_entropy(logits[counted], train.labels[counted]).backward()
        optimiser.step()
        schedule.step()
    return {name: w.detach() for name, w in raw.items()}


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
@pytest.mark.parametrize("mask_seeds", [(0,), (0, 0, 5)], ids=["shared masks", "masks per member"])
def test_a_population_equals_its_networks_trained_one_by_one(
    treatment: Treatment, mask_seeds: tuple[int, ...]
) -> None:
    """To 1e-3 of each weight tensor's norm after 12 steps; a bias before BatchNorm has gradients that are rounding alone."""
    start = population(treatment, mask_seeds=mask_seeds)
    together = fit(Trainer(start, DATA, SPEC))
    for member in range(3):
        masks = together.asymmetry.select([member]).trainable if together.asymmetry else {}
        for name, raw in alone(start, member, SPEC).items():
            if name.endswith("nodes.bias"):
                continue
            expected = raw * masks[name].view_as(raw) if name in masks else raw
            got = together.parameters[name][member]
            assert (got - expected).norm() <= 1e-3 * expected.norm(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU; there is none here")
@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_captured_steps_on_a_cuda_device_equal_the_cpu(treatment: Treatment) -> None:
    """To a part of each weight tensor's norm; a bias before BatchNorm has gradients that are rounding alone."""
    start = population(treatment)
    on_cpu, on_gpu = (fit(Trainer(start.to(device), DATA.to(device), SPEC)) for device in ("cpu", "cuda"))
    for name, expected in on_cpu.effective().items():
        if not name.endswith("nodes.bias"):
            assert (on_gpu.effective()[name].cpu() - expected).norm() <= 1e-3 * expected.norm(), name
    losses = [
        Evaluator(end.network, DATA.to(end.device))(end.effective(), end.buffers, "test")[0]
        for end in (on_cpu, on_gpu)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_networks_learn_and_all_splits_are_measured_in_one_pass() -> None:
    told: dict[int, dict] = {}
    end = fit(
        Trainer(population(Standard()), DATA, SPEC.model_copy(update={"epochs": 40})),
        hooks=Hooks(on_epoch=told.__setitem__),
    )
    assert (told[40]["train/loss"] < told[1]["train/loss"] / 3).all()
    assert (told[40]["test/accuracy"] > 0.5).all()
    evaluator = Evaluator(end.network, DATA)
    together = evaluator.on(list(DATA.splits), end.effective(), end.buffers)
    for split, data in DATA.splits.items():
        counted = data.labels >= 0
        for member in range(3):
            own = {n: p[member] for n, p in end.effective().items()}
            logits = by_hand(end.network, own, data.images.float())[counted]
            loss = nn.functional.cross_entropy(logits, data.labels[counted]).item()
            assert together[split][0][member] == pytest.approx(loss, rel=1e-4)
            accuracy = (logits.argmax(1) == data.labels[counted]).double().mean().item()
            assert together[split][1][member] == pytest.approx(accuracy)
        assert np.array_equal(evaluator(end.effective(), end.buffers, split)[0], together[split][0])
    assert told[40]["test/loss"] == pytest.approx(together["test"][0])


@pytest.mark.parametrize("rows", [1, 2 * NODES + 1, 10**6])
def test_a_graph_is_never_cut_however_few_rows_fit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one = population(SigmaAsymmetric(), mask_seeds=(0, 1, 2))
    whole = Evaluator(one.network, DATA, stacked_buffers=True)(one.effective(), one.buffers, "test")
    monkeypatch.setattr("symcore.metrics.ROWS", {"cpu": rows})
    cut = Evaluator(one.network, DATA, stacked_buffers=True)(one.effective(), one.buffers, "test")
    assert cut[0] == pytest.approx(whole[0], rel=1e-5)


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_combinations_and_paths_are_evaluated_as_networks_of_their_own(treatment: Treatment) -> None:
    one = population(treatment)
    evaluator, effective = Evaluator(one.network, DATA), one.effective()
    coefficients = torch.randn(5, 3)
    found = evaluator.combinations(coefficients, effective, one.buffers, "test")
    every = {n: combine(coefficients, p) for n, p in effective.items()}
    assert found[0] == pytest.approx(evaluator(every, one.buffers, "test")[0], rel=1e-4)
    a, b = ({n: p[[m]] for n, p in effective.items()} for m in (0, 1))
    path = linear_path(evaluator, a, b, one.buffers, "test", alphas(3))
    assert path.loss[0, [0, 2]] == pytest.approx(evaluator(effective, one.buffers, "test")[0][:2], rel=1e-5)


@pytest.mark.parametrize("treatment", TREATMENTS, ids=lambda t: t.kind)
def test_a_hessian_is_that_of_the_loss_in_training(treatment: Treatment) -> None:
    """Through BatchNorm's statistics, on the nodes that count, against the formula differentiated twice in float64."""
    one, train = population(treatment), DATA.splits["train"]
    effective, counted = one.effective(), train.labels >= 0
    masks = one.asymmetry.trainable if one.asymmetry else {}
    h = Hessian(
        one.network,
        effective,
        one.buffers,
        train.images.float(),
        train.labels,
        trainable=masks,
        graph=DATA.graph,
    )
    vector = torch.randn(3, h.free.shape[1]) * h.free
    own = {n: p[1].double() for n, p in effective.items()}
    sizes = [w.numel() for w in own.values()]
    tangent = {
        n: v.view_as(w) for (n, w), v in zip(own.items(), vector[1].double().split(sizes), strict=True)
    }
    gate = one.network.double()

    def loss(at: dict[str, Tensor]) -> Tensor:
        logits = by_hand(gate, at, train.images.double())[counted]
        return nn.functional.cross_entropy(logits, train.labels[counted])

    def slope(at: dict[str, Tensor]) -> Tensor:
        gradient = grad(loss)(at)
        return torch.stack([(gradient[n] * tangent[n]).sum() for n in at]).sum()

    expected = torch.cat([g.flatten() for g in grad(slope)(own).values()]) * h.free[1]
    got = h(vector)[1].double()
    assert (got - expected).norm() <= 1e-3 * expected.norm()


def test_permutations_are_those_of_its_hidden_layers_and_leave_its_outputs_on_the_graph() -> None:
    one = population(Standard())
    spec = symmetry.derive(one.network, torch.zeros(2, FEATURES))
    assert [group.name for group in spec.groups] == ["hidden.0", "hidden.1"]
    on_graph = symmetry.derive(one.network, (DATA.splits["test"].images.float(), *DATA.graph))
    assert on_graph == spec
    moved = symmetry.permute(one.effective(), spec, symmetry.random(spec, stream(0, "test"), 3))
    evaluator = Evaluator(one.network, DATA)
    before, after = (evaluator(w, one.buffers, "test")[0] for w in (one.effective(), moved))
    assert before == pytest.approx(after, rel=1e-5)


def test_both_matchings_find_a_planted_permutation() -> None:
    one = fit(Trainer(population(Standard()), DATA, SPEC))
    a, x = one.effective(), DATA.normalise(DATA.splits["train"].images)
    spec = symmetry.derive(one.network, x[:2])
    planted = symmetry.random(spec, stream(0, "test"), 3)
    b = symmetry.permute(a, spec, planted)
    by_weights = weights.match(one.network, a, b, x[:2])
    both = Networks(
        one.network, {n: torch.cat([w, b[n]]) for n, w in a.items()}, ((0, 3), (1, 4), (2, 5)), x[:2]
    )
    method = activations.ActivationMatching(images=1)  # of a graph all nodes count
    by_features = method.match(both, DATA, seed=0, watch=Watch())
    for name, undone in symmetry.invert(planted).items():
        assert torch.equal(by_weights.permutations[name], undone)
        assert torch.equal(by_features.permutations[name], undone)


LEARNED = [StraightThrough(steps=50), Sinkhorn(steps=150), Sinkhorn(steps=100, objective="midpoint")]


@pytest.mark.parametrize("method", LEARNED, ids=repr)
def test_permutations_are_learned_on_the_whole_graph(method: StraightThrough | Sinkhorn) -> None:
    """A permuted copy is recognised, and the loss halfway between other networks falls, whatever the minibatch is set to."""
    one = fit(Trainer(population(Standard()), DATA, SPEC.model_copy(update={"epochs": 40})))
    x = DATA.normalise(DATA.splits["train"].images)
    spec = symmetry.derive(one.network, x[:2])
    planted = symmetry.random(spec, stream(0, "test"), 3)
    copies = symmetry.permute(one.effective(), spec, planted)
    weights = {n: torch.cat([w, copies[n]]) for n, w in one.effective().items()}
    some = Networks(one.network, weights, ((0, 3), (1, 2)), x[:2])
    found = method.match(some, DATA, seed=0, watch=Watch())
    for name, undone in symmetry.invert(planted).items():
        assert torch.equal(found.permutations[name][0], undone[0])
    few = method.model_copy(update={"images": 1, "batch": 1})
    assert torch.equal(few.match(some, DATA, seed=0, watch=Watch()).objective, found.objective)
    lines = Lines(one.network, some.a, DATA, number=1, batch=1, seed=0)
    moved = symmetry.permute(some.b, spec, found.permutations)
    assert lines.halfway(moved)[1] < lines.halfway(some.b)[1]


def test_what_is_learned_from_is_the_loss_of_the_nodes_that_count() -> None:
    """Halfway between two networks and a third of the way, and its gradient, by dense matrices."""
    one, train = population(Standard()), DATA.splits["train"]
    a, b = ({n: p[[m]] for n, p in one.effective().items()} for m in (0, 1))
    counted = train.labels >= 0

    def loss(b: dict[str, Tensor], position: float) -> Tensor:
        point = {n: torch.lerp(a[n][0], w, position) for n, w in b.items()}
        logits = by_hand(one.network, point, train.images.float())[counted]
        return nn.functional.cross_entropy(logits, train.labels[counted])

    lines = Lines(one.network, a, DATA, number=1, batch=1, seed=0)
    assert lines.halfway(b).item() == pytest.approx(
        loss({n: w[0] for n, w in b.items()}, 0.5).item(), rel=1e-5
    )
    expected = grad(loss)({n: w[0] for n, w in b.items()}, 0.3)
    for name, got in lines.gradient(b, 0.3, step=7).items():
        torch.testing.assert_close(got[0], expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_repair_takes_means_and_spreads_over_all_nodes_with_their_neighbours(norm: str) -> None:
    network = SMALL.model_copy(update={"norm": norm})
    one = build(Design(network, Standard(), (FEATURES,), CLASSES, (4, 8, 15, 16)))
    a, b = ({n: p[first::2] for n, p in one.effective().items()} for first in (0, 1))
    x, positions = DATA.normalise(DATA.splits["train"].images), alphas(3)
    found = repair.estimate(one.network, a, b, one.buffers, x, positions, graph=DATA.graph)
    repaired = repair.repairable(one.network, x[:2])
    middle = {n: w[1] for n, w in interpolate(a, b, positions[1:2]).items()}
    middle |= {n: c[1, 1] for n, c in found.items()}

    def moments(form: nn.Module, own: dict[str, Tensor]) -> list[Tensor]:
        seen: list[Tensor] = []
        maps = [form.get_submodule(name) for name in repair.hidden_maps(one.network, x[:2])]
        hooks = [m.register_forward_hook(lambda _m, _x, out: seen.append(out)) for m in maps]
        call_one(form, own, one.buffers, x, *DATA.graph)
        for hook in hooks:
            hook.remove()
        return [torch.stack([out.mean(0), out.std(0, correction=0)]) for out in seen]

    ends = [moments(one.network, {n: w[1] for n, w in end.items()}) for end in (a, b)]
    between = moments(repaired, middle)
    assert len(between) == SMALL.depth
    for got, first, last in zip(between, *ends, strict=True):
        torch.testing.assert_close(got, (first + last) / 2, rtol=1e-3, atol=1e-4)
    evaluator = Evaluator(repaired, DATA)
    path = linear_path(evaluator, a, b, one.buffers, "test", positions, corrections=found)
    plain = linear_path(Evaluator(one.network, DATA), a, b, one.buffers, "test", positions)
    assert path.loss[:, [0, 2]] == pytest.approx(plain.loss[:, [0, 2]], rel=1e-5)
    assert (path.loss[:, 1] != plain.loss[:, 1]).all()


@pytest.mark.parametrize(
    ("network", "inputs"), [(MLPSpec(width=8, depth=1), ()), (SMALL, DATA.graph)], ids=["mlp", "gnn"]
)
def test_a_network_that_knows_no_neighbours_reads_each_node_by_itself(network, inputs) -> None:
    start = build(Design(network, Standard(), (FEATURES,), CLASSES, (0, 1)))
    end = fit(Trainer(start, DATA, SPEC))
    test, own = DATA.splits["test"], {n: p[0] for n, p in end.effective().items()}
    logits = call_one(end.network, own, end.buffers, DATA.normalise(test.images), *inputs)
    counted = test.labels >= 0
    loss = Evaluator(end.network, DATA)(end.effective(), end.buffers, "test")[0][0]
    expected = nn.functional.cross_entropy(logits[counted], test.labels[counted]).item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_without_activation_a_network_is_linear_in_its_features() -> None:
    network = GNNSpec(width=8, norm="none", activation="none").build((FEATURES,), CLASSES)
    x, y = torch.randn(2, NODES, FEATURES)

    def f(x: Tensor) -> Tensor:
        out: Tensor = network(x, *DATA.graph) - network(torch.zeros_like(x), *DATA.graph)
        return out

    torch.testing.assert_close(f(2 * x - y), 2 * f(x) - f(y), rtol=1e-4, atol=1e-5)


def test_the_papers_masks_and_counts() -> None:
    """n_fix 6 and kappa 1/2 in every map, the readout's too (Lim et al. 2024, appendix E.1)."""
    network = GNNSpec().build((128,), 40)
    matrices = asymmetry.weight_matrices(network)
    found = asymmetry.layers(matrices, WAsymmetric())
    assert [layer.n_fix for layer in found] == [6] * 4
    assert [layer.kappa for layer in found] == [0.5] * 4
    drawn = asymmetry.draw(network, WAsymmetric(), 0)
    masks = drawn.trainable
    assert not torch.equal(masks["hidden.1.nodes.weight"], masks["hidden.2.nodes.weight"])
    assert asymmetry.trainable_count(network, None) == 176_424
    assert asymmetry.trainable_count(network, drawn) == 171_576


def test_a_network_reads_nodes_and_a_graph_is_not_augmented() -> None:
    with pytest.raises(
        ValueError, match=r"network: a graph network reads the features of nodes; got .*\[8, 8\]"
    ):
        SMALL.build((8, 8), 10)
    with pytest.raises(ValueError, match="augment: 'crop_flip' changes images, and cora is a graph"):
        Trainer(population(Standard()), DATA, TrainingSpec(augment="crop_flip"))


def test_a_subset_counts_fewer_nodes_of_the_whole_graph() -> None:
    part = subset(DATA, "test", 10, seed=0).splits["test"]
    assert len(part) == 10
    assert part.images is DATA.splits["test"].images
    kept = part.labels >= 0
    assert torch.equal(part.labels[kept], DATA.splits["test"].labels[kept])
    assert subset(DATA, "test", 30, seed=0) is DATA


def test_a_moved_graph_keeps_one_copy_of_its_features() -> None:
    moved = DATA.to("cpu")
    assert moved.splits["train"].images is moved.splits["test"].images
