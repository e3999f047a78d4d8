"""`symlab run`: one command per study, its flags made from the study's settings; waits, and shows the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.config import Dict
from rich.console import Console

from jobs import registry
from jobs.cli.errors import ExitCode
from jobs.cli.flags import readable
from jobs.cli.help import Formatter
from jobs.cli.options import LabPath, Title
from jobs.cli.watch import finish
from jobs.folder import LabFolder, LabUnusableError
from jobs.lab import Lab, running
from jobs.specs import StudySpec, changes

PRESET_HELP = "Values for the flags that are left out; docs/settings.md lists them."
DATASET_HELP = "The same as --data."


def preset_values(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Gives the flags that were left out the values of the chosen preset, before anything is validated."""
    study = registry.studies().get(commands[-1]) if commands else None
    if study is None:
        return
    by_name = {argument.name: argument for argument in arguments}
    for token in by_name["--dataset"].tokens:
        by_name["--data"].append(token.evolve(keyword="--data"))
    chosen = by_name["--preset"].tokens
    preset = study.PRESETS.get(chosen[0].value if chosen else "laptop")
    if preset is not None:  # an unknown name is refused with the accepted ones when the flags are converted
        values = {
            name: value
            for name, value in changes(preset).items()
            if not _of_other_kind(name, preset, by_name)
        }
        Dict(data=values, source="preset", use_commands_as_keys=False)(app, commands, arguments)


def _of_other_kind(name: str, preset: StudySpec, flags: Mapping[str, Argument]) -> bool:
    """Whether a preset's setting is of a member of a union in whose place another was chosen."""
    kind = flags.get(f"--{name}.kind")
    return kind is not None and any(token.value != getattr(preset, name).kind for token in kind.tokens)


app = App(
    name="run",
    help="Start a study, wait for it and show its result.",
    config=(preset_values,),
    help_formatter=Formatter(),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


def start(spec: StudySpec, lab: Path | None, *, title: str, detach: bool, fresh: bool) -> int:
    """Submits a study and waits for it, or hands it to a running lab.

    Raises:
        LabUnusableError: it is to be handed over, and no lab is running.
    """
    console = Console(highlight=False)
    if detach and running(LabFolder.find(lab)) is None:
        message = "--detach: no lab is running to hand the study to; start one with `symlab up`, or wait without --detach"
        raise LabUnusableError(message)
    with Lab(lab) as served:
        study = served.submit(spec.model_dump(mode="json"), fresh=fresh, title=title)
        console.print(f"Study {study} in {served.lab.path}", soft_wrap=True)
        if detach:
            return ExitCode.OK
        return finish(served, study, console)


def _command(study: registry.Study) -> Callable[..., int]:
    """The command of one study; its signature is what cyclopts makes flags of."""
    spec_type: Any = study.Spec

    def command(
        *,
        preset: str = "laptop",
        dataset: str | None = None,  # moved to --data before this is called
        spec: StudySpec = spec_type(),  # noqa: B008 - settings are immutable
        title: Title = "",
        detach: bool = False,
        fresh: bool = False,
        lab: LabPath = None,
    ) -> int:
        del preset, dataset
        return start(spec, lab, title=title, detach=detach, fresh=fresh)

    presets: Any = Literal[tuple(study.PRESETS)]
    command.__doc__ = spec_type.__doc__
    command.__annotations__ |= {
        "preset": Annotated[presets, Parameter(help=PRESET_HELP)],
        "dataset": Annotated[str | None, Parameter(help=DATASET_HELP)],
        "spec": Annotated[readable(spec_type), Parameter(name="*", group="Settings")],
        "title": Title,
        "detach": Annotated[
            bool, Parameter(negative=(), help="Hand the study to the running lab and return.")
        ],
        "fresh": Annotated[bool, Parameter(negative=(), help="Repeat runs that are done already.")],
        "lab": LabPath,
    }
    return command


for _name, _study in registry.studies().items():
    _app = App(name=_name)
    _app.default(_command(_study))
    app.command(_app)
