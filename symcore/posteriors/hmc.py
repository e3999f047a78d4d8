"""Hamiltonian Monte Carlo (Neal 2011): exact samples of any density in the limit, many chains as one tensor program.

All chains take their leapfrog steps together, and each is proposed, accepted and adapted by itself, from a random stream
of its own seed and the iteration: whoever its neighbours are, it draws the same. The mass matrix is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from symcore.checkpoints import Keeper, StoppedError, Tensors
from symcore.randomness import stream
from symcore.settings import Settings

DIVERGED = 1_000.0
"""Energy error beyond which a trajectory has left the one that it approximates (Stan's threshold)."""
SEARCHES = 100
"""Most halvings or doublings of a step size before burn-in."""
SHRINKAGE, DELAY, FORGETTING = 0.05, 10.0, 0.75
"""Gamma, t0 and kappa of dual averaging (Hoffman and Gelman 2014, section 3.2.1)."""


class HMCSpec(Settings):
    """Full-batch Hamiltonian Monte Carlo: leapfrog steps of a size that burn-in fits to each chain, then samples."""

    kind: Literal["hmc"] = "hmc"
    burn_in: int = Field(default=100, ge=1, le=1_000_000)
    """Iterations of a chain before its first sample, in which its step size is fitted."""
    samples: int = Field(default=100, ge=1, le=100_000)
    """Samples that are kept of each chain."""
    thin: int = Field(default=1, ge=1, le=10_000)
    """Iterations from one kept sample to the next."""
    trajectory: float | None = Field(default=None, gt=0, le=1e4)
    """Length of a trajectory, leapfrog steps (rounded up) times step size; none given: pi / 2 times the prior's standard deviation, a quarter of the prior's period (Izmailov et al. 2021)."""
    max_steps: int = Field(default=1_000, ge=1, le=1_000_000)
    """Leapfrog steps, each a gradient over all images, after which a trajectory ends, however short it still is."""
    jitter: float = Field(default=0.1, ge=0, lt=1)
    """How far each trajectory's step size is drawn from the chain's own, evenly to both sides, in parts of it. With its length a trajectory never stays near the period of some direction, in which the chain would stand still (Neal 2011, section 3.2)."""
    target_acceptance: float = Field(default=0.8, gt=0, lt=1)
    """Mean acceptance probability that step sizes are fitted to; their average errs a little to the small side."""
    prior_std: float = Field(default=1.0, gt=0, le=1e3)
    """Standard deviation of the normal prior of every trained weight."""
    temperature: float = Field(default=1.0, gt=0, le=1e9)
    """What the log-likelihood is divided by: 1 for the posterior of Bayes' rule, less for a cold one."""

    @property
    def length(self) -> float:
        """Length of a trajectory, as given or as the prior has it."""
        return math.pi / 2 * self.prior_std if self.trajectory is None else self.trajectory

    @property
    def iterations(self) -> int:
        """Iterations of a chain in all."""
        return self.burn_in + self.samples * self.thin


class Density(Protocol):
    """A differentiable density that need not be normalised."""

    def __call__(self, position: Tensor, /) -> tuple[Tensor, Tensor]:
        """Its logarithm, float64 [chain], and the gradient of that, [chain, dimension], at positions [chain, dimension]."""


@dataclass(frozen=True)
class Hooks:
    """What sampling tells and asks while it runs."""

    on_progress: Callable[[float], None] = lambda _iterations: None
    """Called before each leapfrog step with the iterations done, fractions included."""
    stopping: Callable[[], bool] = lambda: False
    """Asked before each leapfrog step; when true, StoppedError is raised."""
    keeper: Keeper = field(default_factory=Keeper)
    """Keeps the state between iterations."""


@dataclass(frozen=True)
class Chains:
    """What chains drew after burn-in; tensors on the CPU."""

    samples: Tensor
    """Positions, [sample, chain, dimension]."""
    log_density: Tensor
    """Of each sample, up to the density's constant, float64 [sample, chain]."""
    acceptance: Tensor
    """Mean acceptance probability of the iterations after burn-in, float64 [chain]."""
    step_size: Tensor
    """About which those of trajectories after burn-in are drawn, float64 [chain]."""
    divergences: Tensor
    """Trajectories after burn-in whose energy error was not below `DIVERGED`, int64 [chain]."""


class Point(NamedTuple):
    """Where chains stand in phase space."""

    position: Tensor
    """[chain, dimension]"""
    momentum: Tensor
    """[chain, dimension]"""
    log_density: Tensor
    """At the position, float64 [chain]."""
    gradient: Tensor
    """Of the log density, [chain, dimension]."""

    @property
    def energy(self) -> Tensor:
        """The Hamiltonian: -log density + |momentum|^2 / 2, float64 [chain]."""
        return self.momentum.double().square().sum(1) / 2 - self.log_density


OnStep = Callable[[float], None]
"""What is told, before each leapfrog step, how much of an iteration is done, from 0 to 1; it may raise to stop."""


def unheard(_done: float) -> None:
    """Tells nobody how much is done."""


def leapfrog(
    density: Density,
    start: Point,
    step_size: Tensor,
    steps: Tensor,
    on_step: OnStep = unheard,
) -> Point:
    """The end of trajectories of the Hamiltonian's motion (Neal 2011, section 2.3).

    Args:
        density: whose negative logarithm is the potential energy.
        start: where chains begin.
        step_size: float64 [chain].
        steps: of each chain, int64 [chain]; those with fewer wait for the others at their end.
        on_step: told how far the chain with most steps is.
    """
    position, momentum, log_density, gradient = start
    sizes, most = step_size.to(position).unsqueeze(1), int(steps.max())
    momentum = momentum + sizes / 2 * gradient
    for done in range(most):
        on_step(done / most)
        left = (steps - done).unsqueeze(1)
        position = position + torch.where(left > 0, sizes, 0) * momentum
        log_density, gradient = density(position)
        # the last half of this step's kick and, unless the trajectory ends here, the first half of the next one's
        momentum = momentum + torch.where(left > 1, sizes, torch.where(left == 1, sizes / 2, 0)) * gradient
    return Point(position, momentum, log_density, gradient)


def acceptance_probability(start: Point, end: Point) -> Tensor:
    """min(1, exp(-energy error)), float64 [chain]; 0 where the trajectory left the finite numbers."""
    return (start.energy - end.energy).clamp(max=0).exp().nan_to_num(nan=0.0)


class StepSizes(NamedTuple):
    """Step sizes while they are fitted, by dual averaging of each chain (Hoffman and Gelman 2014, section 3.2)."""

    anchor: Tensor
    """Mu: the logarithm that step sizes are drawn towards, float64 [chain]."""
    shortfall: Tensor
    """Mean amount, later iterations counting more, by which acceptance missed its target, float64 [chain]."""
    log_size: Tensor
    """Of the next trajectory, float64 [chain]."""
    log_mean: Tensor
    """Its weighted mean, which sampling takes, float64 [chain]."""

    @classmethod
    def begun(cls, size: Tensor) -> StepSizes:
        """As they are before the first trajectory, from step sizes float64 [chain] of the right order."""
        # 10 times as large: a trajectory of larger steps costs less, so those are tried first
        return cls((10 * size).log(), torch.zeros_like(size), size.log(), torch.zeros_like(size))

    def after(self, acceptance: Tensor, target: float, number: int) -> StepSizes:
        """As they are after a trajectory, counted from 1, with acceptance probabilities float64 [chain]."""
        share = 1 / (number + DELAY)
        shortfall = (1 - share) * self.shortfall + share * (target - acceptance)
        log_size = self.anchor - math.sqrt(number) / SHRINKAGE * shortfall
        log_mean = torch.lerp(self.log_mean, log_size, number**-FORGETTING)
        return StepSizes(self.anchor, shortfall, log_size, log_mean)


class Sampler:
    """Chains on their way: their state, and the iteration that advances it."""

    def __init__(self, density: Density, start: Tensor, seeds: Sequence[int], spec: HMCSpec) -> None:
        """Chains before the first iteration; step sizes are not yet found.

        Args:
            density: to be sampled.
            start: where chains begin, [chain, dimension], float32 or float64 on the density's device.
            seeds: of the chains.
            spec: how many iterations, of what kind.

        Raises:
            ValueError: if there is not one seed per chain, or a chain begins where the density is 0 or not a number.
        """
        if len(seeds) != len(start):
            msg = f"seeds: got {len(seeds)} for {len(start)} chains; give one per chain"
            raise ValueError(msg)
        self._density, self._seeds, self.spec = density, tuple(seeds), spec
        self.iteration = 0
        self._position = start
        self._log_density, self._gradient = density(start)
        usable = self._log_density.isfinite() & self._gradient.isfinite().all(1)
        if bad := (~usable).nonzero().flatten().tolist():
            msg = f"start: chains {bad} begin where the log density or its gradient is not finite; accepted: positions where both are"
            raise ValueError(msg)
        none = torch.zeros_like(self._log_density)
        self._sizes = StepSizes.begun(none + 1)
        self._acceptance, self._divergences = none, none.long()
        self._samples = torch.empty(spec.samples, *start.shape, dtype=start.dtype)
        self._log_densities = torch.empty(spec.samples, len(start), dtype=torch.float64)

    @property
    def taken(self) -> int:
        """Samples so far."""
        return max(0, self.iteration - self.spec.burn_in) // self.spec.thin

    @property
    def step_size(self) -> Tensor:
        """About which the next iteration's are drawn, float64 [chain]."""
        burning = self.iteration < self.spec.burn_in
        return (self._sizes.log_size if burning else self._sizes.log_mean).exp()

    def state(self) -> dict[str, Tensor]:
        """Everything that an iteration changes, by name."""
        return {
            "iteration": torch.tensor(self.iteration),
            "position": self._position,
            "log_density": self._log_density,
            "gradient": self._gradient,
            "acceptance": self._acceptance,
            "divergences": self._divergences,
            "samples": self._samples[: self.taken],
            "log_densities": self._log_densities[: self.taken],
        } | {f"sizes/{name}": value for name, value in self._sizes._asdict().items()}

    def restore(self, state: Tensors) -> None:
        """Takes up a state."""
        self.iteration = int(state["iteration"])
        device = self._position.device
        self._position, self._log_density, self._gradient, self._acceptance, self._divergences = (
            state[name].to(device)
            for name in ("position", "log_density", "gradient", "acceptance", "divergences")
        )
        self._sizes = StepSizes(*(state[f"sizes/{name}"].to(device) for name in StepSizes._fields))
        self._samples[: self.taken] = state["samples"]
        self._log_densities[: self.taken] = state["log_densities"]

    def find_step_sizes(self, on_step: OnStep = unheard) -> None:
        """Begins with step sizes whose first step has about even odds (Hoffman and Gelman 2014, algorithm 4)."""
        start = self._kicked([stream(seed, "hmc.step") for seed in self._seeds])
        once = torch.ones_like(self._divergences)
        size = torch.ones_like(self._log_density)

        def likely() -> Tensor:
            on_step(0.0)
            return acceptance_probability(start, leapfrog(self._density, start, size, once)) > 0.5

        growing = likely()
        searching = torch.ones_like(growing)
        for _ in range(SEARCHES):
            size = torch.where(searching, torch.where(growing, 2 * size, size / 2), size)
            searching = searching & (likely() == growing)
            if not searching.any():
                break
        self._sizes = StepSizes.begun(size)

    def advance(self, on_step: OnStep = unheard) -> None:
        """One iteration: a trajectory of each chain, to whose end it goes or not; if `on_step` raises, the state stays."""
        spec = self.spec
        draws = [stream(seed, "hmc", self.iteration) for seed in self._seeds]
        start = self._kicked(draws)
        varied, threshold = self._log_density.new_tensor([rng.random(2).tolist() for rng in draws]).T
        steps = (spec.length / self.step_size).ceil().clamp(1, spec.max_steps).long()
        step_size = self.step_size * (1 + spec.jitter * (2 * varied - 1))
        end = leapfrog(self._density, start, step_size, steps, on_step)
        probability = acceptance_probability(start, end)
        accepted = threshold < probability
        self._position = torch.where(accepted.unsqueeze(1), end.position, start.position)
        self._log_density = torch.where(accepted, end.log_density, start.log_density)
        self._gradient = torch.where(accepted.unsqueeze(1), end.gradient, start.gradient)
        self.iteration += 1
        if self.iteration <= spec.burn_in:
            self._sizes = self._sizes.after(probability, spec.target_acceptance, self.iteration)
            return
        self._acceptance = self._acceptance + probability
        self._divergences = self._divergences + ~(end.energy - start.energy < DIVERGED)
        if (self.iteration - spec.burn_in) % spec.thin == 0:
            self._samples[self.taken - 1] = self._position
            self._log_densities[self.taken - 1] = self._log_density

    def chains(self) -> Chains:
        """What was drawn, at the end."""
        iterations = self.spec.samples * self.spec.thin
        return Chains(
            samples=self._samples,
            log_density=self._log_densities,
            acceptance=(self._acceptance / iterations).cpu(),
            step_size=self.step_size.cpu(),
            divergences=self._divergences.cpu(),
        )

    def _kicked(self, draws: Sequence[np.random.Generator]) -> Point:
        """Where chains stand, with a new momentum of each from its own stream."""
        position = self._position
        momentum = np.stack([rng.standard_normal(position.shape[1]) for rng in draws])
        return Point(position, torch.from_numpy(momentum).to(position), self._log_density, self._gradient)


def sample(sampler: Sampler, hooks: Hooks | None = None) -> Chains:
    """Draws chains to their end, or from where a kept state stands.

    Args:
        sampler: of the density, with the settings.
        hooks: what is told and asked on the way.

    Raises:
        StoppedError: when `hooks.stopping()` was true; the keeper has the state.
    """
    hooks = hooks or Hooks()

    def look(part: float) -> None:
        hooks.on_progress(sampler.iteration + part)
        if hooks.stopping():
            msg = f"stopped after {sampler.iteration} iterations"
            raise StoppedError(msg)

    if kept := hooks.keeper.kept():
        sampler.restore(kept)
    else:
        sampler.find_step_sizes(look)
    while sampler.iteration < sampler.spec.iterations:
        with hooks.keeper.at(sampler.state):
            sampler.advance(look)
    hooks.keeper.keep(sampler.state())
    return sampler.chains()
