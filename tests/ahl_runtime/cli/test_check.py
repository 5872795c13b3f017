"""`ahl-runtime check`: the reference frames scored again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ahl_runtime.cli.support import lines, run


def test_check(bundle_path: Path, make_bundle: Callable[..., Path], parts: Any) -> None:
    assert run("check", bundle_path).stdout.startswith("onnxruntime: pass: 2 frames, off by at most ")
    moved = [{**frame, "score": frame["score"] + 0.01} for frame in parts[0]["artefacts"][0]["reference"]]
    wrong = make_bundle(first={"reference": moved})
    assert run("check", wrong, code=1).stdout.startswith("onnxruntime: fail: ")
    (result,) = lines(run("check", wrong, "--json", code=1))
    assert result["passed"] is False and result["engines"][0]["largest"] == pytest.approx(0.01, abs=1e-5)
