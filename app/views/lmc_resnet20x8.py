"""Results of linear mode connectivity of ResNet20 at 8 times the width: they look as an MLP's do."""

from app.views.lmc import BRIEF, TABLES, brief, draw

__all__ = ["BRIEF", "TABLES", "brief", "draw"]
