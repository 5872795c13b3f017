"""The pages are true: links lead somewhere; commands, options, make targets and files exist; the reference is whole."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")), *sorted(DOCS.rglob("*.md"))]
README = (ROOT / "README.md").read_text()
CLI = (DOCS / "reference" / "cli.md").read_text()
PROGRAMS = ("ahl", "ahl-runtime")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" not in link and (not target.exists() or (heading and heading not in _headings(target))):
            broken.append(link)
    assert not broken


@cache
def _headings(page: Path) -> set[str]:
    """As GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in DOCS.rglob("*.md") if page.parent != DOCS], ids=_name)
def test_the_index_has_every_page(page: Path) -> None:
    assert f"({page.relative_to(DOCS)})" in (DOCS / "README.md").read_text()


# Commands


def _commands(text: str) -> list[list[str]]:
    """Lines of code that call one of our programs, as words without comments."""
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(rf"({'|'.join(PROGRAMS)}) [a-z]", line)]


@cache
def _help(command: tuple[str, ...]) -> str:
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run([program, *command[1:], "--help"], capture_output=True, text=True, check=True).stdout


def _options(command: tuple[str, ...]) -> set[str]:
    _, _, listed = _help(command).partition("\nOptions:\n")
    described = re.findall(r"^  (--.+)$", listed, re.MULTILINE)
    return {option for line in described for option in re.findall(r"--[a-z][a-z0-9-]*", line.split("  ")[0])}


@cache
def _known(program: str) -> frozenset[tuple[str, ...]]:
    """Every command of a program, groups that can be run on their own included."""
    found: set[tuple[str, ...]] = set()
    left: list[tuple[str, ...]] = [(program,)]
    while left:
        command = left.pop()
        _, _, listed = _help(command).partition("\nCommands:\n")
        inside = [(*command, name) for name in re.findall(r"^  ([a-z]+)", listed, re.MULTILINE)]
        left += inside
        if not inside or _options(command) - {"--help", "--version"}:
            found.add(command)
    return frozenset(found)


def _split(words: list[str]) -> tuple[str, ...]:
    """The command that the words begin with."""
    return max((c for c in _known(words[0]) if tuple(words[: len(c)]) == c), key=len, default=())


COMMANDS = sorted({tuple(words) for page in PAGES for words in _commands(page.read_text())})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_of_the_pages_exist(words: tuple[str, ...]) -> None:
    command = _split(list(words))
    assert command
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= _options(command)


def test_the_readme_shows_the_quick_start() -> None:
    shown = {tuple(words[:2]) for words in _commands(README)}
    assert shown >= {("ahl", "train"), ("ahl", "export"), ("ahl-runtime", "check"), ("ahl-runtime", "serve")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_reference_has_every_command(program: str) -> None:
    sections = {tuple(title.split()) for title in re.findall(r"^## (.+)$", CLI, re.MULTILINE)}
    assert {title for title in sections if title[0] == program} == _known(program)


SECTIONS = re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", CLI, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("title", "body"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_the_reference_has_every_option(title: str, body: str) -> None:
    rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `--")]
    listed = {option for row in rows for option in re.findall(r"--[a-z][a-z0-9-]*", row)}
    assert listed == _options(tuple(title.split())) - {"--help"}


# Files


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_of_the_pages_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ +|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_source_files_of_the_pages_exist(page: Path) -> None:
    """By the end of their path: pages say `line/queues.py`."""
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text()))
    places = [path for top in ("ahl_*", "benchmarks", "calibration", "tests") for path in ROOT.glob(f"{top}/**/*.py")]
    there = {f"/{path.relative_to(ROOT)}" for path in places}
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_folders_of_the_pages_exist(page: Path) -> None:
    tops = ("ahl_", "benchmarks/", "calibration/", "deploy/", "docs/", "tests/")
    named = re.findall(r"`([a-z_/0-9-]+/)`", page.read_text())
    assert not [name for name in named if name.startswith(tops) and not (ROOT / name).is_dir()]


def test_constraints_pin_every_line_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s@/]+", line) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("top", ["ahl_export", "ahl_runtime", "ahl_train", "benchmarks", "calibration", "tests"])
def test_pages_that_the_code_names_exist(top: str) -> None:
    files = [path for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".toml") and path != Path(__file__)]
    named = {(path, page) for path in files for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text())}
    assert not [f"{path}: {page}" for path, page in named if not (ROOT / page).is_file()]
