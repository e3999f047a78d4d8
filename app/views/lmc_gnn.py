"""Results of linear mode connectivity of graph networks: they look as an MLP's do."""

from app.views.lmc import BRIEF, TABLES, brief, draw

__all__ = ["BRIEF", "TABLES", "brief", "draw"]
