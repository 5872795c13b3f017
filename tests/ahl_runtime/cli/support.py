"""`ahl-runtime` as users run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(
    *arguments: object, code: int = 0, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line; its exit code is `code`, and an error is one line."""
    done = subprocess.run(
        [sys.executable, "-m", "ahl_runtime.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == code, done
    if code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    else:
        assert done.stderr == ""
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The JSON lines that it printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]
