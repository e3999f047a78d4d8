"""What a run will cost before it starts: operations, memory, steps, and a rough time for a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """The cost of a run, counted from its shapes."""

    flop: float
    """Floating point operations of the matrix products."""
    bytes_memory: int
    """Memory of weights, optimiser state and activations at their peak."""
    steps: int
    """Tensor programs that are launched one after another."""

    def seconds(self, device: str) -> float:
        """A rough time on a device ("cpu" or "cuda"); operations and launches do not overlap on small networks."""
        speed = SPEEDS["cuda" if device.startswith("cuda") else "cpu"]
        return START_SECONDS + self.flop / speed.flop_per_second + self.steps * speed.step_seconds


@dataclass(frozen=True)
class Speed:
    """What a device does with populations of small networks."""

    flop_per_second: float
    step_seconds: float


START_SECONDS = 0.3
"""Reading inputs and tracing the program."""
SPEEDS = {"cpu": Speed(3e10, 1e-3), "cuda": Speed(2e13, 5e-5)}
"""CPU: one thread of a server, digits at width 128. CUDA: an H200, at 17 ms an epoch of one MNIST network of width 512."""
