"""Symmetry as data: which neurons of a network can be exchanged without changing the function it computes."""
