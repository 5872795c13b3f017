"""The README's words are true: its links lead somewhere, its commands and options exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def _commands() -> list[list[str]]:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("ahl ", "ahl-runtime "))]


def test_the_readme_shows_the_road() -> None:
    assert {tuple(c[:2]) for c in _commands()} >= {
        ("ahl", "train"),
        ("ahl", "export"),
        ("ahl-runtime", "check"),
        ("ahl-runtime", "score"),
    }


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_options_of_the_readme_exist(command: list[str]) -> None:
    program = Path(sys.executable).with_name(command[0])
    shown = subprocess.run([program, command[1], "--help"], capture_output=True, text=True, check=True).stdout
    options = [word for word in command if word.startswith("--")]
    assert all(re.search(rf"{option}\b", shown) for option in options)


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets


def test_constraints_pin_every_line_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s@/]+", line) for line in lines if line and not line.startswith("#"))
