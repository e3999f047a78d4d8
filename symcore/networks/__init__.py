"""Architectures as plain modules, each with the spec that builds it."""
