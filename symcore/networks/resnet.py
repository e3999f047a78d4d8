"""The residual networks of He et al. 2016 for small images, normalised per image as in Lim et al. 2024, appendix E.1."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from symcore.networks.batchnorm import BatchNorm
from symcore.settings import Settings

STAGES = (16, 32, 64)
"""Channels of each stage at width 1; every stage but the first halves height and width of its input."""
SHORTCUT_MAP = ".shortcut.conv.weight"
"""How the names of the convolutions end whose output is added to that of a block's second one."""


def _convolution(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)


def _normalisation(norm: str, channels: int) -> nn.Module:
    """One group is all channels and positions of an image together: the "LayerNorm" of Lim et al. 2024."""
    if norm == "batch":
        return BatchNorm(channels)
    return nn.GroupNorm(1, channels) if norm == "group" else nn.Identity()


class Shortcut(nn.Module):
    """What a block adds where its shape changes (option B), [batch, in, 2 h, 2 w] -> [batch, out, h, w]."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv = _convolution(channels_in, channels_out, 1, stride)
        self.norm = _normalisation(norm, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """The input in the block's output shape."""
        out: Tensor = self.norm(self.conv(x))
        return out


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; activations after the first, and after the sum."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = _convolution(channels_in, channels_out, 3, stride)
        self.norm1 = _normalisation(norm, channels_out)
        self.activation1 = nn.ReLU()
        self.conv2 = _convolution(channels_out, channels_out, 3)
        self.norm2 = _normalisation(norm, channels_out)
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = Shortcut(channels_in, channels_out, stride, norm) if changes else nn.Identity()
        self.activation2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps, [batch, in, stride * h, stride * w] -> [batch, out, h, w]."""
        inner = self.activation1(self.norm1(self.conv1(x)))
        out: Tensor = self.activation2(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Three stages of basic blocks after a first convolution; mean over positions; a linear readout gives logits.

    Inputs are [batch, colour, h, w], or [batch, h, w] where there is one colour.
    """

    def __init__(self, colours: int, classes: int, channels: tuple[int, ...], blocks: int, norm: str) -> None:
        super().__init__()
        self.conv = _convolution(colours, channels[0], 3)
        self.norm = _normalisation(norm, channels[0])
        self.activation = nn.ReLU()
        strides = [1] + [2] * (len(channels) - 1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(before, after, stride, norm),
                *(BasicBlock(after, after, 1, norm) for _ in range(blocks - 1)),
            )
            for before, after, stride in zip((channels[0], *channels), channels, strides, strict=False)
        )
        self.readout = nn.Linear(channels[-1], classes)
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015: weights ~ N(0, 2 / fan-in), for whatever treatment the network gets.

        The authors' code draws the trainable weights of W-Asymmetric networks 2.45 times smaller than those of standard
        ones (its masked layers keep torch's default), so that treatment and scale cannot be told apart there.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, [batch, class]."""
        if x.ndim == 3:
            x = x.unsqueeze(1)
        x = self.activation(self.norm(self.conv(x)))
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.readout(x.mean((2, 3)))
        return logits


class ResNetSpec(Settings):
    """A residual network for small images (Lim et al. 2024, appendix E.1: ResNet20 at widths 1 and 8)."""

    label: ClassVar[str] = "ResNet"

    kind: Literal["resnet"] = "resnet"
    depth: int = Field(default=20, ge=8, le=1202)
    """Layers with weights on the longest way through: 6 n + 2 for n blocks in each of the three stages."""
    width: float = Field(default=1.0, gt=0, le=64)
    """Factor of the 16, 32 and 64 channels of the stages, a multiple of 1/16."""
    norm: Literal["group", "batch", "none"] = "group"
    """Normalisation after each convolution: over all channels of an image, over a batch's images, or none."""

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            msg = f"{depth} is not 6 n + 2; accepted: 8, 14, 20, 26, 32 and so on in steps of 6"
            raise ValueError(msg)
        return depth

    @field_validator("width")
    @classmethod
    def _whole_channels(cls, width: float) -> float:
        if not (STAGES[0] * width).is_integer():
            msg = f"{width:g} gives {STAGES[0] * width:g} channels; accepted: multiples of 1/{STAGES[0]}"
            raise ValueError(msg)
        return width

    def build(self, input_shape: tuple[int, ...], classes: int) -> ResNet:
        """A freshly initialised network for images of `input_shape`, [h, w] or [colour, h, w].

        Raises:
            ValueError: if the inputs are no images.
        """
        if len(input_shape) not in {2, 3}:
            msg = f"input_shape: {list(input_shape)} is no image; accepted: [h, w] or [colour, h, w]"
            raise ValueError(msg)
        colours = input_shape[0] if len(input_shape) == 3 else 1
        channels = tuple(int(c * self.width) for c in STAGES)
        return ResNet(colours, classes, channels, (self.depth - 2) // 6, self.norm)
