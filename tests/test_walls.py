"""The walls of the house: the device side imports nothing heavy, and import-linter's contracts hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IMPORT_ALL = """
import importlib, pkgutil, sys

HEAVY = {"torch", "torchvision", "timm", "onnx", "sklearn", "scipy", "ahl_train", "ahl_export"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is behind the wall")

sys.meta_path.insert(0, Wall())
count = 0
for root in sys.argv[1:]:
    package = importlib.import_module(root)
    for module in pkgutil.walk_packages(package.__path__, root + "."):
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_device_side_imports_without_the_heavy_packages() -> None:
    assert int(python("-c", IMPORT_ALL, "ahl_runtime", "calibration")) > 15


def test_the_wall_stands() -> None:
    with pytest.raises(AssertionError, match="behind the wall"):
        python("-c", IMPORT_ALL, "torch")


@pytest.mark.parametrize("package", ["onnxruntime", "pydantic", "typer"])
def test_the_decoder_brings_only_numpy_and_pillow(package: str) -> None:
    python("-c", f"import ahl_runtime.core.decode, sys; sys.exit({package!r} in sys.modules)")


HELP = """
import sys
from {side}.cli.main import main
sys.argv = ["ahl", "{command}", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
sys.exit({package!r} in sys.modules)
"""


@pytest.mark.parametrize("package", ["onnxruntime", "numpy", "PIL", "pydantic", "rich"])
def test_the_device_says_its_help_without(package: str) -> None:
    python("-c", HELP.format(side="ahl_runtime", command="score", package=package))


@pytest.mark.parametrize("package", ["torch", "onnx", "sklearn", "timm", "rich"])
def test_the_workstation_says_its_help_without(package: str) -> None:
    python("-c", HELP.format(side="ahl_export", command="train", package=package))


def test_import_linter_agrees() -> None:
    python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
