"""Optimisers of whole populations: a block's weights and what its optimiser remembers of them, and the step that moves them."""
