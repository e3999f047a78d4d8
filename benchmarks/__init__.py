"""Measurements of speed; `make bench` runs them. Tests do not time."""
