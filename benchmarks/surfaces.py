"""Seconds for a surface of 51 x 51 cells: the paper's MNIST MLP, 2,000 images of MNIST's shape, a random plane.

Three ways, in milliseconds per cell: a torch module that is given each cell's weights in turn, as landscape tools do;
every cell a member of a population with weights of its own; and `evaluate`, which multiplies by the first layer for the
three spanning networks alone. The first two are measured on a few cells, the last on the whole surface too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import torch
from torch import nn
from training import PAPER, noise, seconds

from symcore.data.sources import Dataset
from symcore.landscape.planes import Plane, random_plane
from symcore.landscape.surfaces import evaluate, rounds, subset
from symcore.metrics import Array, Evaluator
from symcore.population import Design, Population, build
from symcore.precision import arithmetic
from symcore.treatments import Standard


def one_by_one(network: nn.Module, plane: Plane, dataset: Dataset, xs: Array, ys: Array) -> Array:
    """Loss of each cell from a plain module that takes its weights and looks at all images at once."""
    test = dataset.splits["test"]
    images = dataset.normalise(test.images)
    losses = []
    with torch.no_grad():
        for x, y in zip(xs, ys, strict=True):
            moved = {n: o + x * plane.first[n] + y * plane.second[n] for n, o in plane.origin.items()}
            network.load_state_dict(moved)
            losses.append(nn.functional.cross_entropy(network(images), test.labels).item())
    return np.array(losses)


def per_cell(population: Population, plane: Plane, dataset: Dataset, cells: int, runs: int) -> Evaluator:
    """Prints milliseconds per cell of each way, all on the same cells, one after another in each run."""
    rng = np.random.default_rng(0)
    xs, ys = rng.uniform(-1, 1, (2, cells))
    evaluator = Evaluator(population.network, dataset)
    network = population.design.network.build((28, 28), 10).to(population.device)
    few = slice(0, 4 if population.device.type == "cpu" else cells)  # weights that are held at once
    ways = {
        "one by one": (lambda: one_by_one(network, plane, dataset, xs[:20], ys[:20]), len(xs[:20])),
        "a population": (
            lambda: evaluator(plane.at(xs[few], ys[few]), population.buffers, "test"),
            len(xs[few]),
        ),
        "evaluate": (lambda: evaluate(evaluator, plane, population.buffers, "test", xs, ys), cells),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for run in range(runs + 1):
        for way, (work, done) in ways.items():
            spent = seconds(work, 1) / done * 1e3
            if run:  # the first warms up
                times[way].append(spent)
    for way, each in times.items():
        print(f"  {way:14s} {statistics.median(each):8.3f} ms per cell (n = {runs}, least {min(each):.3f})")
    loss = evaluate(evaluator, plane, population.buffers, "test", xs[:20], ys[:20]).loss
    apart = np.abs(loss / one_by_one(network, plane, dataset, xs[:20], ys[:20]) - 1).max()
    print(f"  largest relative difference of a loss from that of the plain module: {apart:.1e}")
    return evaluator


def whole(evaluator: Evaluator, plane: Plane, side: int, runs: int) -> None:
    """Prints the seconds of a whole surface, round after round."""
    at = np.linspace(-1, 1, side)

    def surface() -> None:
        for cells in rounds(side, side):
            evaluate(evaluator, plane, {}, "test", at[cells[:, 1]], at[cells[:, 0]])

    each = [seconds(surface, 1) for _ in range(runs)]
    print(f"  {side} x {side} cells: {statistics.median(each):.2f} s ({', '.join(f'{t:.2f}' for t in each)})")


def main() -> None:
    """Measures on the GPU where there is one, else on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--images", type=int, default=2_000, help="images that each cell is evaluated on")
    parser.add_argument("--side", type=int, default=51, help="cells along a side of the surface")
    parser.add_argument("--runs", type=int, default=5, help="measurements of each way, one more to warm up")
    parser.add_argument("--surfaces", type=int, default=1, help="measurements of the whole surface")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = subset(noise(), "test", given.images, seed=0).to(device)
    population = build(Design(PAPER, Standard(), (28, 28), 10, (0,)), device)
    plane = random_plane({name: w[0] for name, w in population.effective().items()}, seed=0)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {given.threads} threads"
    load, start = os.getloadavg()[0], time.perf_counter()
    print(f"{where} (load {load:.1f} before): MLP 784-512-512-512-10, {given.images:,} images")
    with arithmetic("tf32"):
        evaluator = per_cell(population, plane, dataset, 128, given.runs)
        whole(evaluator, plane, given.side, given.surfaces)
    print(f"  {time.perf_counter() - start:.0f} s in all, load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
