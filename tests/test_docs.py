"""The documentation is complete and true: every command, setting, page and address, every shell line and link."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cyclopts import App

from app import navigation
from jobs.cli.command import app
from symcore.networks import registered

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shell_lines() -> Iterator[tuple[str, str]]:
    """Each command line that a document shows: in ```sh blocks, and `make ...` and `symlab ...` within a sentence."""
    for path in DOCUMENTS:
        text = path.read_text()
        blocks = [body for language, body in FENCE.findall(text) if language == "sh"]
        inline = re.findall(r"`((?:symlab|make) [^`]+)`", FENCE.sub("", text.split("<!-- From here on")[0]))
        lines = [line for block in blocks for line in block.splitlines() if line]
        yield from ((path.name, line) for line in [*lines, *inline])


def headings(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_generated_parts_are_what_the_code_says() -> None:
    generator = load_generator()
    for name, generate in generator.GENERATED.items():
        written = (ROOT / "docs" / name).read_text().split(generator.MARK)[1]
        assert written == generate(), f"docs/{name} is old: run `make docs`"


def test_every_setting_and_option_has_a_meaning() -> None:
    settings = (ROOT / "docs" / "settings.md").read_text()
    assert not re.findall(r"^\| `.*\|\s*\|$", settings, re.MULTILINE)
    assert not re.findall(
        r"^\* `--[^`]*`:\s*(?:\*\[.*)?$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE
    )


def test_every_page_is_described() -> None:
    described = headings((ROOT / "docs" / "pages.md").read_text())
    pages = {module.TITLE: module.URL for module in navigation.modules().values()}
    assert pages
    assert not {title.lower() for title in pages} - described
    text = (ROOT / "docs" / "pages.md").read_text()
    assert all(f"Address `/{url}" in text for url in pages.values())


def test_every_address_of_the_server_is_described() -> None:
    from jobs.api import routes
    from jobs.service import current

    described = (ROOT / "docs" / "api.md").read_text()
    *named, _everything_else = [route.path for route in routes(current, "")]
    assert not [path for path in named if f"`{path}`" not in described]


@pytest.fixture
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the network that the documents show, as a person who follows them has done."""
    shown = dict(FENCE.findall((ROOT / "docs" / "own-networks.md").read_text()))
    (tmp_path / "nets.py").write_text(shown["python"])
    monkeypatch.setenv(registered.VARIABLE, str(tmp_path / "nets.py"))
    monkeypatch.setattr(registered, "_registrations", {})


@pytest.mark.usefixtures("_nets")
@pytest.mark.parametrize(("document", "line"), list(shell_lines()))
def test_a_shown_command_is_one_that_works(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "symlab":
        check_symlab(app, words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets or re.match(r"[A-Z_]+=", word) for word in words[1:]), document
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2])
    else:
        assert words[0] in {"apt-get", "curl", "export", "docker", "source", "ssh"}, line


def check_symlab(symlab: App, words: list[str]) -> None:
    """The line parses as it stands: the command is there, its flags are, and their values are accepted."""
    symlab.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            continue
        file = path.parent / target if target else path
        assert file.exists(), link
        assert not anchor or anchor in headings(file.read_text()), link


def test_every_document_is_reachable_from_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{path.name}" for path in DOCUMENTS[1:]} <= linked
