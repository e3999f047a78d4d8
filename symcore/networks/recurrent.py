"""Recurrent networks that read an image row by row: a tanh, GRU or LSTM cell and a linear readout of its last state.

Each gate has its own maps from the input and from the hidden state, and one bias: torch's second bias adds nothing, and
one map per gate lets every symmetry of the cell be read off the graph.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn, sigmoid, tanh

from symcore.settings import Settings

HIDDEN_MAP = ".hidden.weight"
"""How the names of maps from the hidden state end."""


class Gate(nn.Module):
    """Input of one gate, [batch, in] and [batch, hidden] -> [batch, hidden]."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, width)
        self.hidden = nn.Linear(width, width, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)  # as torch's own cells

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """W x + U h + b."""
        out: Tensor = self.input(x) + self.hidden(h)
        return out


class Candidate(nn.Identity):
    """Where a candidate for the state passes before tanh; sigma-Asymmetric networks have FiGLU here."""


class Cell(nn.Module):
    """What a step does with the state; the first tensor of the state is what the readout sees."""

    states: ClassVar[int] = 1
    """Tensors in the state, all [batch, hidden]."""

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next state."""
        raise NotImplementedError


class TanhCell(Cell):
    """Elman's cell: h' = tanh(W x + U h + b)."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.candidate = Gate(in_features, width)
        self.bend = Candidate()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next hidden state."""
        return (tanh(self.bend(self.candidate(x, state[0]))),)


class GRUCell(Cell):
    """h' = (1 - z) n + z h with n = tanh(W x + b + r * U h) (Cho et al. 2014, in torch's form)."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.reset, self.update, self.candidate = (Gate(in_features, width) for _ in range(3))
        self.bend = Candidate()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next hidden state."""
        (h,) = state
        r, z = sigmoid(self.reset(x, h)), sigmoid(self.update(x, h))
        n = tanh(self.bend(self.candidate.input(x) + r * self.candidate.hidden(h)))
        return ((1 - z) * n + z * h,)


class LSTMCell(Cell):
    """c' = f c + i g and h' = o tanh(c') with g = tanh(W x + U h + b) (Hochreiter and Schmidhuber 1997)."""

    states: ClassVar[int] = 2

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.enter, self.forget, self.candidate, self.output = (Gate(in_features, width) for _ in range(4))
        self.bend = Candidate()

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The next hidden state and memory."""
        h, c = state
        i, f, o = (sigmoid(gate(x, h)) for gate in (self.enter, self.forget, self.output))
        c = f * c + i * tanh(self.bend(self.candidate(x, h)))
        return o * tanh(c), c


CELLS: dict[str, type[Cell]] = {"rnn": TanhCell, "gru": GRUCell, "lstm": LSTMCell}


class Recurrent(nn.Module):
    """Reads [batch, row, column] (or [batch, channel, row, column]) one row a step; logits from the last hidden state."""

    def __init__(self, cell: str, in_features: int, width: int, classes: int) -> None:
        super().__init__()
        self.cell = CELLS[cell](in_features, width)
        self.readout = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        rows = x if x.ndim == 3 else x.transpose(1, 2).flatten(2)
        state = tuple(x.new_zeros(len(x), self.readout.in_features) for _ in range(self.cell.states))
        for step in range(rows.shape[1]):
            state = self.cell(rows[:, step], *state)
        logits: Tensor = self.readout(state[0])
        return logits


class RecurrentSpec(Settings):
    """A recurrent network that reads an image row by row."""

    label: ClassVar[str] = "recurrent network"

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """What a step does: a tanh layer, a gated recurrent unit, or long short-term memory."""
    width: int = Field(default=64, ge=1, le=4096)
    """Hidden units."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> Recurrent:
        """A freshly initialised network for images of `input_shape`, [row, column] or [channel, row, column].

        Raises:
            ValueError: if inputs have no rows to read.
        """
        if len(input_shape) not in {2, 3}:
            msg = f"network: a recurrent network reads images row by row; got inputs of shape {list(input_shape)}"
            raise ValueError(msg)
        channels = input_shape[0] if len(input_shape) == 3 else 1
        return Recurrent(self.cell, channels * input_shape[-1], self.width, classes)
