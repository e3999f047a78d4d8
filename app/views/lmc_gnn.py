"""Results of linear mode connectivity of graph networks: they look as an MLP's do."""

from app.views.lmc import BRIEF, brief, draw, exports

__all__ = ["BRIEF", "brief", "draw", "exports"]
