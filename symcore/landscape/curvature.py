"""Curvature of the loss at networks: the Hessian's largest eigenvalues (Lanczos) and its trace (Hutchinson).

Products of the Hessian with vectors are exact over all given images, batch by batch, for many networks at once. Only
directions that training can take count: entries that D fixes are held.

With BatchNorm the loss is that of training: each batch is normalised by its own statistics, which change with the weights
and are differentiated through. There batches have the size in which evaluation estimates statistics, whatever fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from symcore.asymmetry import Parameters
from symcore.calibration import BATCH
from symcore.checkpoints import Keeper
from symcore.metrics import ROWS, Array, cross_entropy
from symcore.networks.batchnorm import batch_norms
from symcore.networks.gnn import neighbours
from symcore.population import call_one
from symcore.program import Program
from symcore.propagation import Graph
from symcore.randomness import stream

Tensors = Mapping[str, Tensor]


class Hessian:
    """Products of many networks' Hessians of the mean cross-entropy with vectors, flat: [member, entry]."""

    def __init__(
        self,
        network: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        images: Tensor,
        labels: Tensor,
        *,
        trainable: Tensors | None = None,
        stacked_buffers: bool = False,
        on_batch: Callable[[], None] = lambda: None,
        graph: Graph | tuple[()] = (),
    ) -> None:
        """Prepares the products.

        Args:
            network: the module that all networks share.
            weights: that they compute with, by name, [member, *shape].
            buffers: the module's, shared, or [member, *shape] if `stacked_buffers`.
            images: normalised, [image, *input_shape], on the weights' device.
            labels: [image]; of a graph's nodes those below 0 do not count.
            trainable: D of those parameters that have fixed entries, [*shape] or [member, *shape].
            stacked_buffers: whether buffers have a member axis.
            on_batch: called before each batch of images; may raise to stop.
            graph: whose nodes the images are, all of them in order; they are one batch.
        """
        self._weights, self._buffers = dict(weights), dict(buffers)
        self._images, self._labels, self._on_batch = images, labels, on_batch
        self._free = _flat({n: _free(n, w, trainable or {}) for n, w in weights.items()})
        self._counted = int((labels >= 0).sum())
        whole = joined(network, len(images), graph)
        self._batch = whole if whole > 1 else max(1, ROWS[images.device.type] // len(self._free))
        self._program = _product_program(
            network, list(weights), neighbours(network, graph), stacked_buffers=stacked_buffers
        )

    @property
    def members(self) -> int:
        """Number of networks."""
        return len(self._free)

    @property
    def free(self) -> Tensor:
        """Which entries are trained, as 0 or 1, [member, entry]."""
        return self._free

    def __call__(self, vectors: Tensor) -> Tensor:
        """H v for v [member, entry], both within the trained entries."""
        tangents = self._shaped(vectors * self._free)
        fixed = [*self._weights.values(), *tangents.values(), *self._buffers.values()]
        total = torch.zeros_like(vectors)
        for x, y in zip(self._images.split(self._batch), self._labels.split(self._batch), strict=True):
            self._on_batch()
            products = self._program([*fixed, x, y])
            total += torch.cat([p.flatten(1) for p in products], dim=1)
        return total / self._counted * self._free

    def _shaped(self, vectors: Tensor) -> Parameters:
        sizes = [w[0].numel() for w in self._weights.values()]
        pieces = vectors.split(sizes, dim=1)
        return {n: v.view_as(w) for (n, w), v in zip(self._weights.items(), pieces, strict=True)}


def joined(network: nn.Module, images: int, graph: Graph | tuple[()]) -> int:
    """Of some images, or a graph's nodes, how many act on each other in the loss of training, and so are never cut.

    1 where each stands alone; a batch whose statistics BatchNorm takes; all nodes of a graph.
    """
    if graph:
        return images
    return min(BATCH, images) if batch_norms(network) else 1


def _flat(parameters: Tensors) -> Tensor:
    return torch.cat([p.flatten(1) for p in parameters.values()], dim=1)


def _free(name: str, weight: Tensor, trainable: Tensors) -> Tensor:
    """D of one parameter as 0 or 1, [member, *shape]."""
    return trainable[name].expand_as(weight).to(weight) if name in trainable else torch.ones_like(weight)


def _product_program(
    network: nn.Module, names: list[str], graph: Graph | tuple[()], *, stacked_buffers: bool
) -> Program:
    """A program over [*weights, *tangents, *buffers, x, y] that gives H v summed over images, by parameter."""
    buffer_names = [name for name, _ in network.named_buffers()]

    def one(
        weights: Parameters, tangents: Parameters, buffers: Parameters, x: Tensor, y: Tensor
    ) -> Parameters:
        def loss(at: Parameters) -> Tensor:
            return cross_entropy(call_one(network, at, buffers, x, *graph), y).sum()

        def slope(at: Parameters) -> Tensor:
            gradient = grad(loss)(at)
            return torch.stack([(gradient[name] * tangents[name]).sum() for name in names]).sum()

        product: Parameters = grad(slope)(weights)
        return product

    many = vmap(one, in_dims=(0, 0, 0 if stacked_buffers else None, None, None))

    def flat(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        count = len(names)
        weights = dict(zip(names, tensors[:count], strict=True))
        tangents = dict(zip(names, tensors[count : 2 * count], strict=True))
        buffers = dict(zip(buffer_names, tensors[2 * count : -2], strict=True))
        products = many(weights, tangents, buffers, tensors[-2], tensors[-1])
        return tuple(products[name] for name in names)

    return Program(flat)


@dataclass(frozen=True)
class Eigenvalues:
    """Largest eigenvalues, descending, and how far each may lie from a true one: both [member, k]."""

    values: Array
    residuals: Array


def largest(
    hessian: Hessian,
    count: int,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[int], None] = lambda _: None,
    keeper: Keeper | None = None,
) -> Eigenvalues:
    """The largest eigenvalues by Lanczos' method, every vector orthogonalised against all before.

    Args:
        hessian: of some networks.
        count: eigenvalues wanted.
        steps: products with the Hessian, at least `count`; the more, the smaller the residuals.
        seed: of the first vector.
        on_step: called with the steps done, before each next one; may raise to stop.
        keeper: keeps the state where a step is stopped; none given, nothing does.

    Raises:
        ValueError: if there are fewer steps than eigenvalues wanted.
    """
    if steps < count:
        msg = f"steps: got {steps}; at least {count} are needed for {count} eigenvalues"
        raise ValueError(msg)
    keeper = keeper or Keeper()
    lanczos = _Lanczos(hessian, _unit(_normal(hessian, "lanczos", seed, 0)), keeper.kept())
    while len(lanczos.alphas) < steps:
        with keeper.at(lanczos.state):
            on_step(len(lanczos.alphas))
            lanczos.step()
    return _ritz(torch.stack(lanczos.alphas, 1), torch.stack(lanczos.betas, 1), count)


class _Lanczos:
    """An orthonormal basis [step + 1][member, entry] and the tridiagonal matrix of the Hessian in it, both growing."""

    def __init__(self, hessian: Hessian, first: Tensor, kept: Tensors) -> None:
        """Starts from the first vector, or goes on from a state."""
        self._hessian = hessian
        held = {name: list(tensor.to(first.device)) for name, tensor in kept.items()}
        self.basis = held.get("basis", [first])
        self.alphas, self.betas = held.get("alphas", []), held.get("betas", [])

    def state(self) -> dict[str, Tensor]:
        """All of it, stacked; empty before the first step."""
        if not self.alphas:
            return {}
        parts = {"basis": self.basis, "alphas": self.alphas, "betas": self.betas}
        return {name: torch.stack(tensors) for name, tensors in parts.items()}

    def step(self) -> None:
        """One product with the Hessian; if it is stopped on the way, nothing has changed."""
        product = self._hessian(self.basis[-1])
        self.alphas.append((product * self.basis[-1]).sum(1))
        for _twice in range(2):  # once leaves rounding behind that grows into copies of found eigenvalues
            for earlier in self.basis:
                product = product - (product * earlier).sum(1, keepdim=True) * earlier
        self.betas.append(product.norm(dim=1))
        self.basis.append(product / self.betas[-1].clamp(min=torch.finfo(product.dtype).tiny).unsqueeze(1))


def _ritz(alphas: Tensor, betas: Tensor, count: int) -> Eigenvalues:
    """Eigenvalues of the tridiagonal matrices [member, step, step], the largest `count`."""
    a, b = alphas.double().cpu(), betas.double().cpu()
    matrix = torch.diag_embed(a) + torch.diag_embed(b[:, :-1], 1) + torch.diag_embed(b[:, :-1], -1)
    values, vectors = torch.linalg.eigh(matrix)
    residuals = b[:, -1:] * vectors[:, -1, :].abs()
    return Eigenvalues(values.flip(1)[:, :count].numpy(), residuals.flip(1)[:, :count].numpy())


@dataclass(frozen=True)
class Trace:
    """The mean over random probes and its standard error, both [member]."""

    mean: Array
    error: Array


def trace(
    hessian: Hessian,
    *,
    probes: int,
    seed: int,
    on_probe: Callable[[int], None] = lambda _: None,
    keeper: Keeper | None = None,
) -> Trace:
    """The trace by Hutchinson's estimator with random signs.

    Args:
        hessian: of some networks.
        probes: random vectors, at least 2; the error falls with their square root.
        seed: of the vectors.
        on_probe: called with the probes done, before each next one; may raise to stop.
        keeper: keeps the state where a probe is stopped; none given, nothing does.

    Raises:
        ValueError: if there are fewer than 2 probes.
    """
    if probes < 2:
        msg = f"probes: got {probes}; at least 2 are needed for an error"
        raise ValueError(msg)
    keeper = keeper or Keeper()
    found = list(keeper.kept().get("samples", ()))  # [probe][member]
    while len(found) < probes:
        with keeper.at(lambda: {"samples": torch.stack(found)} if found else {}):
            on_probe(len(found))
            signs = _normal(hessian, "hutchinson", seed, len(found)).sign()
            found.append((signs * hessian(signs)).sum(1).double().cpu())
    samples = torch.stack(found).numpy()
    return Trace(samples.mean(0), samples.std(0, ddof=1) / probes**0.5)


def _normal(hessian: Hessian, purpose: str, seed: int, index: int) -> Tensor:
    """The same normal vector for every network, within its trained entries."""
    draw = stream(seed, purpose, index).standard_normal(hessian.free.shape[1])
    return torch.from_numpy(draw).to(hessian.free) * hessian.free


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)
