"""`python -m jobs.cli`: the same as `symlab`."""

from jobs.cli.command import main

main()
