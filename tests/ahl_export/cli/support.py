"""Both command lines as users run them."""

import subprocess
import sys


def ahl(*arguments: object, program: str = "ahl_export") -> subprocess.CompletedProcess[str]:
    """Run the command line of a package."""
    command = [sys.executable, "-m", f"{program}.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
