"""The `symlab` command: one file for each group of its verbs, on top of the client and the lab."""
