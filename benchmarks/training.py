"""Network-epochs per second of a population, against the same networks trained one after another.

On a CPU: 16 MLPs of width 64 on digits. On a GPU: 40 MLPs of the paper's size on MNIST's shapes (pixels are noise; speed
does not depend on them), and the 25-point path of one pair over 10,000 images. Every number is the median of several runs
after a warm-up that holds tracing, compilation and capture, whose time stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from symcore.data.sources import SOURCES, Dataset, Split, load
from symcore.landscape.paths import alphas, linear_path
from symcore.metrics import Evaluator
from symcore.networks.mlp import MLPSpec
from symcore.population import Design, Population, build
from symcore.precision import Precision, arithmetic
from symcore.training import Hooks, Trainer, TrainingSpec, fit
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

PAPER = MLPSpec(width=512, depth=3)
TREATMENTS: dict[str, Treatment] = {
    "standard": Standard(),
    "W-Asymmetric": WAsymmetric(n_fix=(64, 64, 64, 256), kappa=(1.0, 1.0, 0.5, 0.25)),
    "sigma-Asymmetric": SigmaAsymmetric(std=1.0),
}


def seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of a call; a GPU's work is waited for."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def one_by_one(population: Population, dataset: Dataset, spec: TrainingSpec) -> None:
    """An epoch of every member in turn: torch modules, autograd and AdamW, as anyone would write it."""
    trainer = Trainer(population, dataset, spec)
    train = dataset.splits["train"]
    x, y = dataset.normalise(train.images), train.labels
    for member in range(population.size):
        network = population.design.network.build(population.design.input_shape, population.design.classes)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )
        for index in trainer.shuffled(0)[member].split(spec.batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[index]), y[index]).backward()
            optimiser.step()


def epochs_of(
    population: Population, dataset: Dataset, epochs: int, precision: Precision
) -> tuple[float, float]:
    """Seconds of an epoch of the whole population, its evaluation included, and of the first one with its warm-up."""
    ends = [time.perf_counter()]
    hooks = Hooks(on_epoch=lambda _epoch, _metrics: ends.append(time.perf_counter()))
    fit(Trainer(population, dataset, TrainingSpec(epochs=epochs), precision=precision), hooks=hooks)
    spans = [after - before for before, after in pairwise(ends)]
    return statistics.median(spans[1:]), spans[0]


def cpu(threads: int) -> None:
    """Population against loop on digits."""
    torch.set_num_threads(threads)
    digits = load("digits", Path())
    population = build(Design(MLPSpec(width=64), Standard(), (8, 8), 10, tuple(range(16))))
    spec = TrainingSpec(epochs=1)
    one_by_one(population.select([0]), digits, spec)
    loops = [seconds(lambda: one_by_one(population, digits, spec), 1) for _ in range(3)]
    together, first = epochs_of(population, digits, 20, "float32")
    loop = statistics.median(loops)
    print(f"CPU, {threads} threads: 16 MLPs 64-64-64-64-10 on digits, batch 64, network-epochs per second")
    print(f"  one by one   {16 / loop:8.1f}   (3 runs: {', '.join(f'{16 / t:.1f}' for t in loops)})")
    print(
        f"  population   {16 / together:8.1f}   (median of 19 epochs, evaluation included; first epoch {first:.2f} s)"
    )
    print(f"  ratio        {loop / together:8.2f}")


def noise() -> Dataset:
    """A data set of MNIST's shapes."""
    source = SOURCES["mnist"]
    splits = {
        name: Split(
            torch.randint(0, 256, (n, *source.input_shape), dtype=torch.uint8), torch.randint(0, 10, (n,))
        )
        for name, n in source.sizes.items()
    }
    return Dataset(source, splits)


def gpu(members: int, epochs: int) -> None:
    """Populations of the paper's MLP, and one path."""
    dataset = noise().to("cuda")
    print(
        f"{torch.cuda.get_device_name()}: {members} MLPs 784-512-512-512-10, 54,000 images, batch 64, TF32 products"
    )
    print("  treatment          ms per network-epoch   network-epochs/s   first epoch with compilation, s")
    for name, treatment in TREATMENTS.items():
        population = build(Design(PAPER, treatment, (28, 28), 10, tuple(range(members))), "cuda")
        epoch, first = epochs_of(population, dataset, epochs, "tf32")
        print(f"  {name:18s} {epoch / members * 1e3:14.2f} {members / epoch:22.1f} {first:22.1f}", flush=True)
    evaluator = Evaluator(population.network, dataset)
    weights = population.effective()
    a, b = ({name: w[member : member + 1] for name, w in weights.items()} for member in (0, 1))
    with arithmetic("tf32"):
        path = lambda: linear_path(evaluator, a, b, population.buffers, "test", alphas(25))  # noqa: E731
        first = seconds(path, 1)
        print(
            f"  25-point path of one pair, 10,000 images: {seconds(path, 9) * 1e3:.1f} ms (median of 9; first call {first * 1e3:.0f} ms)"
        )


def main() -> None:
    """Measures what the machine has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--members", type=int, default=40, help="networks in the GPU population")
    parser.add_argument(
        "--epochs", type=int, default=6, help="epochs on the GPU, the first of them not counted"
    )
    parser.add_argument("--no-cpu", action="store_true", help="measure the GPU alone")
    given = parser.parse_args()
    if not given.no_cpu:
        cpu(given.threads)
    if torch.cuda.is_available():
        gpu(given.members, given.epochs)


if __name__ == "__main__":
    main()
