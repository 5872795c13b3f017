"""The entry point of `ahl`: on a plain install, one line that says which extra is missing."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run `ahl`; exit code 2 where the workstation's packages are not installed."""
    if find_spec("typer") is None:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        extra = command if command in ("export", "demo") else "train"
        name = f"ahl {command}".strip()
        sys.stderr.write(f"error: {name} needs the extra [{extra}]: pip install 'ahl[{extra}]'\n")
        sys.exit(2)
    from ahl_export.cli.main import main as run

    run()
