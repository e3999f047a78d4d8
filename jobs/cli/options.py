"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

LabPath = Annotated[Path | None, Parameter(help="Lab folder; without it ./lab.", env_var="SYMLAB_LAB")]
Port = Annotated[
    int | None,
    Parameter(
        help="Port of the pages and the API, 0 for any; without it the first free one from 8501 on.",
        validator=validators.Number(gte=0, lte=65535),
    ),
]
Browser = Annotated[
    bool, Parameter(name="--browser", help="Open the lab in a browser, if there is one.", show_default=False)
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]
Ids = Annotated[tuple[str, ...], Parameter(help="Studies and runs, by the ids that `symlab ls` shows.")]
Title = Annotated[str, Parameter(help="A name that people see.")]
