"""What is measured, in the unit that people read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A measured quantity: its name, unit and precision on axes and in tables."""

    key: str
    unit: str
    factor: float
    """A stored value times this is the shown value."""
    digits: int
    barrier_unit: str
    """Unit of a difference of two values."""
    barrier_symbol: str
    """The same in short, for axes."""

    def title(self, split: str) -> str:
        """An axis title with its unit, "test loss (nats)"."""
        return f"{split} {self.key} ({self.unit})"


LOSS = Quantity("loss", "nats", 1.0, 3, "nats", "nats")
ACCURACY = Quantity("accuracy", "%", 100.0, 1, "percentage points", "% points")
CALIBRATED = Quantity("calibrated loss", "nats", 1.0, 3, "nats", "nats")
"""Loss at the best softmax temperature of each network; only some studies measure it."""
QUANTITIES = {quantity.key: quantity for quantity in (LOSS, ACCURACY)}
