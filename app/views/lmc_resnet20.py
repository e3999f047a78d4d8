"""Results of linear mode connectivity of ResNet20: they look as an MLP's do."""

from app.views.lmc import BRIEF, brief, draw, exports

__all__ = ["BRIEF", "brief", "draw", "exports"]
