"""The OpenAPI document is true: schemathesis asks everything in it, rightly and wrongly, of a real server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def test_the_document_names_every_route(url: str) -> None:
    document = requests.get(f"{url}/openapi.json", timeout=5).json()
    assert {"/v2/models/{name}/infer", "/v1/score", "/metrics", "/healthz"} <= document["paths"].keys()
    for path, methods in document["paths"].items():
        for described in methods.values():
            assert described["summary"], path
            assert {"400", "429"} <= described["responses"].keys()


@pytest.mark.slow
def test_schemathesis_finds_no_fault(url: str, cells: list[Path], line: Any, tmp_path: Path) -> None:
    for cell in cells[:3]:
        answered = requests.post(
            f"{url}/v1/score", cell.read_bytes(), headers={"content-type": "image/png"}, timeout=10
        ).json()
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[parameters]\nname = "{line.name}"\nversion = "{line.digest[:12]}"\nid = "{answered["id"]}"\n')
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "--config-file", str(config), "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS)]
    options = ["--phases", "coverage,fuzzing", "--max-examples", "50", "--seed", "6", "--no-color"]
    done = subprocess.run(
        [*command, *options, "--continue-on-failure"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
