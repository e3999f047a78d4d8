"""Many networks of one shape as one: stacked parameters [member, ...], built, evaluated, saved and loaded together.

One network is a population of one; 25 points of a path, or 30 posterior samples, are one too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from symcore import asymmetry as asym
from symcore import controls
from symcore.asymmetry import Asymmetry, Parameters
from symcore.figlu import check_gates, replace_activations
from symcore.networks.registered import RegisteredSpec
from symcore.networks.registry import NetworkSpec
from symcore.randomness import torch_seed
from symcore.treatments import AsymmetricInit, FixedBiases, Gates, Masks, Syre, Treatment


@dataclass(frozen=True)
class Design:
    """All that determines a population before training."""

    network: NetworkSpec
    treatment: Treatment
    input_shape: tuple[int, ...]
    classes: int
    seeds: tuple[int, ...]
    """One per member; it seeds initialisation, shuffling and augmentation."""
    mask_seeds: tuple[int, ...] = (0,)
    """Seeds of masks, of what is fixed and of FiGLU's F: one shared by all members, or one per member."""


@dataclass(frozen=True)
class Population:
    """Networks with one module as their common form.

    `parameters` are raw (W, not F + D * W), [member, *shape]; `buffers` are shared [*shape] or [member, *shape].
    """

    design: Design
    network: nn.Module
    parameters: Parameters
    buffers: Parameters
    asymmetry: Asymmetry | None

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.design.seeds)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(iter(self.parameters.values())).device

    @property
    def stacked(self) -> bool:
        """Whether masks and buffers are the members' own, [member, *shape], and not shared."""
        return len(self.design.mask_seeds) > 1

    def effective(self) -> Parameters:
        """F + D * W: the weights that the networks compute with, [member, *shape]."""
        return self.asymmetry.apply(self.parameters) if self.asymmetry else dict(self.parameters)

    def with_effective(self, effective: Mapping[str, Tensor]) -> Population:
        """The same population with other weights, given as F + D * W."""
        raw = self.asymmetry.raw(effective) if self.asymmetry else dict(effective)
        return replace(self, parameters=raw)

    def to(self, device: torch.device | str) -> Population:
        """The same population on another device."""
        return replace(
            self,
            network=self.network.to(device),
            parameters={name: p.to(device) for name, p in self.parameters.items()},
            buffers={name: b.to(device) for name, b in self.buffers.items()},
            asymmetry=self.asymmetry.to(device) if self.asymmetry else None,
        )

    def select(self, members: Sequence[int]) -> Population:
        """Some members, in the given order (a member may stand in it twice)."""
        index = list(members)
        mask_seeds = self.design.mask_seeds
        design = replace(
            self.design,
            seeds=tuple(self.design.seeds[m] for m in index),
            mask_seeds=tuple(mask_seeds[m] for m in index) if self.stacked else mask_seeds,
        )
        return replace(
            self,
            design=design,
            parameters={name: p[index] for name, p in self.parameters.items()},
            buffers=self._buffers_of(index),
            asymmetry=self.asymmetry.select(index) if self.asymmetry else None,
        )

    def _buffers_of(self, index: Sequence[int]) -> Parameters:
        """Buffers of some members; those of a single one are shared, as its mask seed is."""
        if not self.stacked:
            return self.buffers
        return {name: b[index[0]] if len(index) == 1 else b[list(index)] for name, b in self.buffers.items()}


def build(design: Design, device: torch.device | str = "cpu") -> Population:
    """Initialises every member from its own seed, masks and gates from the mask seeds.

    Raises:
        ValueError: if the treatment does not fit the network (as FiGLU with a person's own, where it cannot take the place
            of every hidden activation), or the seeds do not match in number.
    """
    if len(design.mask_seeds) not in {1, len(design.seeds)}:
        msg = f"mask_seeds: got {len(design.mask_seeds)} for {len(design.seeds)} members; give one, or one per member"
        raise ValueError(msg)
    parameters, _ = stack_module_state([_initialise(design, seed) for seed in design.seeds])
    forms = [_form(design, mask_seed) for mask_seed in design.mask_seeds]
    network, masks = forms[0][0], [mask for _, mask in forms if mask is not None]
    buffers = [dict(form.named_buffers()) for form, _ in forms]
    shared = len(forms) == 1
    if isinstance(design.network, RegisteredSpec) and isinstance(design.treatment, Gates):
        check_gates(network, torch.zeros(2, *design.input_shape))
    population = Population(
        design=design,
        network=network.requires_grad_(requires_grad=False),
        # FiGLU has none, where an activation (PReLU) may have had some
        parameters={name: parameters[name].detach() for name, _ in network.named_parameters()},
        buffers=buffers[0]
        if shared
        else {name: torch.stack([b[name] for b in buffers]) for name in buffers[0]},
        asymmetry=(masks[0] if shared else asym.stack(masks)) if masks else None,
    )
    if isinstance(design.treatment, AsymmetricInit):
        return replace(population, parameters=population.effective(), asymmetry=None).to(device)
    return population.with_effective(population.effective()).to(device)


def _initialise(design: Design, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "init"))
        return design.network.build(design.input_shape, design.classes)


def _form(design: Design, mask_seed: int) -> tuple[nn.Module, Asymmetry | None]:
    """The module that all members share, its activations swapped for FiGLU, and what is fixed of its parameters."""
    network = design.network.build(design.input_shape, design.classes)
    if isinstance(design.treatment, Gates):
        replace_activations(network, torch.zeros(2, *design.input_shape), design.treatment.std, mask_seed)
    return network, _asymmetry(network, design.treatment, mask_seed)


def _asymmetry(network: nn.Module, treatment: Treatment, mask_seed: int) -> Asymmetry | None:
    """What a treatment fixes of the parameters, at least at the start."""
    match treatment:
        case Masks():
            return asym.draw(network, treatment, mask_seed)
        case Syre():
            return controls.offsets(network, treatment, mask_seed)
        case FixedBiases():
            return controls.fixed_biases(network, treatment, mask_seed)
        case _:
            return None


def call_one(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    *graph: Tensor,
) -> Tensor:
    """Logits [batch, class] of one network with the given weights in place of its own, and on a graph if it takes one."""
    logits: Tensor = functional_call(network, {**parameters, **buffers}, (x, *graph))
    return logits


def forward(population: Population, x: Tensor) -> Tensor:
    """Logits [member, batch, class] of every member on the same inputs [batch, *input_shape].

    BatchNorm takes the statistics of these inputs; a graph network sees nodes without neighbours.
    """
    in_dims = (0, 0 if population.stacked else None, None)
    call = vmap(lambda p, b, x: call_one(population.network, p, b, x), in_dims=in_dims)
    logits: Tensor = call(population.effective(), population.buffers, x)
    return logits


_DESIGN = TypeAdapter(Design)


def save(population: Population, path: Path) -> None:
    """One safetensors file: raw parameters, D, F, buffers, and the design as JSON in its metadata."""
    groups = {"parameters": population.parameters, "buffers": population.buffers}
    if population.asymmetry:
        groups |= {"trainable": population.asymmetry.trainable, "fixed": population.asymmetry.fixed}
    tensors = {
        f"{group}/{name}": t.contiguous().cpu()
        for group, values in groups.items()
        for name, t in values.items()
    }
    save_file(tensors, path, metadata={"design": _DESIGN.dump_json(population.design).decode()})


def load(path: Path, device: torch.device | str = "cpu") -> Population:
    """The population that `save` wrote; masks and gates come from the file, not from their seeds.

    Raises:
        ValueError: if the file's buffers are not those of the network, because it was made with fewer gates, say.
    """
    groups: dict[str, Parameters] = {"parameters": {}, "buffers": {}, "trainable": {}, "fixed": {}}
    with safe_open(path, framework="pt") as file:
        design = _DESIGN.validate_json(file.metadata()["design"])
        for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
            group, name = key.split("/", 1)
            groups[group][name] = file.get_tensor(key)
    network, _ = _form(design, design.mask_seeds[0])
    missing = {name for name, _ in network.named_buffers()} ^ groups["buffers"].keys()
    if missing:
        msg = f"{path}: the file and the network differ in the buffers {', '.join(sorted(missing))}; accepted: files of the same form"
        raise ValueError(msg)
    stacked = len(design.mask_seeds) > 1
    masked = Asymmetry(groups["trainable"], groups["fixed"], stacked) if groups["fixed"] else None
    order = dict(network.named_parameters())
    population = Population(
        design=design,
        network=network.requires_grad_(requires_grad=False),
        parameters={name: groups["parameters"][name] for name in order},
        buffers=groups["buffers"],
        asymmetry=masked,
    )
    return population.to(device)
