"""The examples of docs/reference/http.md do what the page says, against a real server."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from ahl_runtime.core.decode import decode

PAGE = (Path(__file__).parents[3] / "docs/reference/http.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(url: str, line: Any, cells: list[Path], tmp_path: Path) -> dict[str, str]:
    """A folder with part.png, and what the examples take from the environment."""
    (tmp_path / "part.png").write_bytes(cells[0].read_bytes())
    png = {"content-type": "image/png"}
    ids = [requests.post(f"{url}/v1/score", c.read_bytes(), headers=png, timeout=10).json()["id"] for c in cells]
    return {**os.environ, "URL": url, "ID": ids[0], "NAME": line.name}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: re.findall(r"URL/(\S+?)[?\"]", b)[0])
def test_the_examples_run(block: str, place: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-ec", block], env=place, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout


def test_the_python_example_runs(
    url: str, line: Any, cells: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "part.png").write_bytes(cells[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.replace("127.0.0.1:8080", url.removeprefix("http://")).replace("cells", line.name), names)  # noqa: S102
    assert names["score"].tolist() == line.infer(decode(cells[0])[None]).score.tolist()


def test_every_metric_of_the_page_is_there(url: str, line: Any, cells: list[Path]) -> None:
    line.submit(decode(cells[0]), None, "")
    text = requests.get(f"{url}/metrics", timeout=5).text
    for name in re.findall(r"`(ahl_\w+)`", PAGE):
        assert f"# TYPE {name.removesuffix('_total')}" in text or f"# TYPE {name}" in text, name
