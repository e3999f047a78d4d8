"""The graph network of Lim et al. 2024, appendix E.1: neighbours' mean, linear map, normalisation and activation, layer by layer.

Called with the nodes' features alone it acts as on a graph without edges. Permutations of its neurons are read off that
call, for they do not depend on the graph.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from symcore.networks.batchnorm import BatchNorm
from symcore.networks.mlp import ACTIVATIONS
from symcore.propagation import Graph, propagate
from symcore.settings import Settings

NODE_MAP = ".nodes.weight"
"""How the names of the hidden layers' maps end."""


class GraphLayer(nn.Module):
    """[node, in] -> [node, out]: what a node has and its neighbours' mean, mapped, normalised over the nodes, activated."""

    def __init__(self, in_features: int, out_features: int, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.nodes = nn.Linear(in_features, out_features)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        """Hidden features of all nodes, [node, out]."""
        gathered = propagate(Graph(*graph), x) if graph else x
        out: Tensor = self.activation(self.norm(self.nodes(gathered)))
        return out


class GNN(nn.Module):
    """`depth` graph layers of one width; a linear readout gives each node's logits."""

    def __init__(
        self, in_features: int, classes: int, width: int, depth: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        fan_ins = [in_features] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(
            GraphLayer(
                fan_in,
                width,
                BatchNorm(width) if norm == "batch" else nn.Identity(),
                nn.Identity() if activation == "none" else ACTIVATIONS[activation](),
            )
            for fan_in in fan_ins
        )
        self.readout = nn.Linear(width, classes)

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        """Logits [node, class] for features [node, feature] and the tensors of a `Graph`, or none: no edges."""
        for layer in self.hidden:
            x = layer(x, *graph)
        logits: Tensor = self.readout(x)
        return logits


def neighbours(network: nn.Module, graph: Graph | tuple[()]) -> Graph | tuple[()]:
    """What a network takes after its inputs: the graph of its data set if it looks at neighbours, else nothing."""
    return graph if isinstance(network, GNN) else ()


class GNNSpec(Settings):
    """A graph network (Lim et al. 2024, appendix E.1: width 256, three hidden layers)."""

    label: ClassVar[str] = "graph network"

    kind: Literal["gnn"] = "gnn"
    width: int = Field(default=256, ge=1, le=8192)
    """Neurons in each hidden layer."""
    depth: int = Field(default=3, ge=1, le=64)
    """Number of hidden layers, each of which looks at a node's neighbours once."""
    norm: Literal["batch", "none"] = "batch"
    """Normalisation between the linear map and the activation: over all nodes, or none."""
    activation: Literal["gelu", "relu", "none"] = "gelu"
    """Hidden nonlinearity; with none the network is linear, as the simplified graph convolutions of Wu et al. 2019."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> GNN:
        """A freshly initialised network for nodes with features of `input_shape`, [feature].

        Raises:
            ValueError: if the inputs are no nodes.
        """
        if len(input_shape) != 1:
            msg = f"network: a graph network reads the features of nodes; got inputs of shape {list(input_shape)}"
            raise ValueError(msg)
        return GNN(input_shape[0], classes, self.width, self.depth, self.norm, self.activation)
