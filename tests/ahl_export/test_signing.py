"""Keys are made and bundles signed from the command line; the device then takes only these."""

import subprocess
import sys
from pathlib import Path

import pytest

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.bundle.signature import load_public
from ahl_train.run import Run

pytestmark = pytest.mark.slow


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_road_of_a_signed_bundle(run: Run, tmp_path: Path) -> None:
    key, other, bundle = tmp_path / "line.key", tmp_path / "other.key", tmp_path / "signed.ahl"
    for path in (key, other):
        made = program("ahl", "keygen", path)
        assert made.returncode == 0 and made.stdout == "", made.stderr
    again = program("ahl", "keygen", key)
    assert again.returncode == 2 and "exists already" in again.stderr
    exported = program("ahl", "export", run.folder, "--out", bundle, "--alpha", 0.1, "--sign", key)
    assert exported.returncode == 0, exported.stderr
    assert open_bundle(bundle, trust=load_public(Path(f"{key}.pub"))).signed
    assert program("ahl-runtime", "check", bundle, "--trust", f"{key}.pub").returncode == 0
    refused = program("ahl-runtime", "check", bundle, "--trust", f"{other}.pub")
    assert refused.returncode == 2 and "its signature does not match the trusted key" in refused.stderr


@pytest.mark.parametrize(("suffix", "said"), [(".pub", "a public key"), (".gone", "No such file")])
def test_a_key_that_cannot_sign_is_said_before_the_work(run: Run, tmp_path: Path, suffix: str, said: str) -> None:
    key, bundle = tmp_path / "line.key", tmp_path / "signed.ahl"
    program("ahl", "keygen", key)
    done = program("ahl", "export", run.folder, "--out", bundle, "--sign", f"{key}{suffix}")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not bundle.exists()
