"""What the settings of all methods say of themselves before anything is computed."""

from __future__ import annotations

from typing import ClassVar

from symcore.settings import Settings
from symcore.training import TrainingSpec


class MethodSpec(Settings):
    """Base of the settings of a method that approximates posteriors."""

    label: ClassVar[str]
    """Its name as people write it."""
    kind: str

    @property
    def products(self) -> int:
        """Matrix products of a layer in training, for each that a network has without a posterior."""
        return 1

    @property
    def copies(self) -> int:
        """Numbers that are trained of each weight."""
        return 1

    def kept(self, training: TrainingSpec) -> int:
        """Numbers of each weight that are kept besides, after a training."""
        del training
        return 0

    def check(self, training: TrainingSpec) -> None:
        """Whether the method can be trained so.

        Raises:
            ValueError: if not, naming the setting at its beginning, and what is accepted.
        """
        del training
