"""Milliseconds per training step of ResNet20 populations on images of CIFAR-10's shape (random pixels), on a GPU.

A step is everything that training does: drawing and augmenting each network's own minibatch, forward and backward pass,
AdamW with the masks of W-Asymmetric networks.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from symcore.data.sources import SOURCES, Dataset, Split
from symcore.metrics import Evaluator
from symcore.networks.resnet import ResNetSpec
from symcore.population import Design, build
from symcore.precision import Precision, arithmetic
from symcore.training import Trainer, TrainingSpec, stepper
from symcore.treatments import SigmaAsymmetric, Standard, Treatment, WAsymmetric

TREATMENTS: tuple[Treatment, ...] = (Standard(), WAsymmetric(), SigmaAsymmetric())
SPEC = TrainingSpec(
    epochs=1, batch=128, learning_rate=1e-2, weight_decay=0, warmup_epochs=20, augment="crop_flip"
)


def noise(images: int) -> Dataset:
    """Images of CIFAR-10's shape with random pixels and labels."""
    source, draw = SOURCES["cifar-10"], torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        pixels = torch.randint(256, (n, *source.input_shape), dtype=torch.uint8, generator=draw)
        return Split(pixels, torch.randint(10, (n,), generator=draw))

    return Dataset(source, {"train": split(images), "test": split(images // 5)})


def measure(width: float, members: int, treatment: Treatment, precision: Precision, runs: int) -> None:
    """Prints ms per network-step, the median of some runs, and how long the first step took with its compilation."""
    dataset = noise(20_000).to("cuda")
    design = Design(ResNetSpec(width=width), treatment, dataset.source.input_shape, 10, tuple(range(members)))
    trainer = Trainer(build(design, "cuda"), dataset, SPEC, precision=precision)
    steps = max(10, int(600 / width / members))
    with arithmetic(precision), torch.no_grad():
        trainer.begin(trainer.draw(0))
        advance, start = stepper(trainer), time.perf_counter()
        advance(SPEC.batch)
        torch.cuda.synchronize()
        first, each = time.perf_counter() - start, []
        for _ in range(runs):
            trainer.cursor.zero_()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(min(steps, 150)):
                advance(SPEC.batch)
            torch.cuda.synchronize()
            each.append((time.perf_counter() - start) / min(steps, 150) / members * 1e3)
        evaluator = Evaluator(trainer.population.network, dataset, in_bfloat16=precision == "bfloat16")
        evaluate = lambda: evaluator(trainer.weights, trainer.population.buffers, "test")  # noqa: E731
        evaluate()
        start = time.perf_counter()
        evaluate()
        spent = (time.perf_counter() - start) / members / len(dataset.splits["test"]) * 1e6
    memory = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    print(
        f"  {width:5g} {members:8d}  {treatment.label:18s} {precision:9s} {statistics.median(each):8.3f} "
        f"({min(each):.3f} to {max(each):.3f})  {spent:7.2f}  {first:6.1f}  {memory:6.1f}",
        flush=True,
    )


def main() -> None:
    """Measures widths 1 and 8 of every treatment, where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=32, help="networks of width 1")
    parser.add_argument("--wide-members", type=int, default=2, help="networks of width 8")
    parser.add_argument("--runs", type=int, default=5, help="measurements")
    parser.add_argument("--only", choices=["narrow", "wide"], help="one width")
    parser.add_argument("--treatments", type=int, default=3, help="how many of the treatments")
    parser.add_argument("--precision", default="bfloat16", help="arithmetic of training")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: a ResNet20 of CIFAR-10 is too slow to measure on a CPU")
        return
    print(f"{torch.cuda.get_device_name()}: ResNet20, 32 x 32 x 3 images, batch {SPEC.batch}, augmented")
    print(
        "  width networks  treatment          precision  ms per network-step   us per evaluated image  first s  GiB"
    )
    for width, members in ((1, given.members), (8, given.wide_members)):
        if given.only in {None, "narrow" if width == 1 else "wide"}:
            for treatment in TREATMENTS[: given.treatments]:
                measure(width, members, treatment, given.precision, given.runs)


if __name__ == "__main__":
    main()
