"""Wheels too large for one transfer: cut into pieces where there is a network, joined where there is none.

python tests/gpu/pieces.py onnxruntime-gpu==1.28.0      into build/gpu/pieces, 48 MiB each, with a list of all
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import CARRIED

_PIECE = 48 << 20  # bytes
_LIST = "pieces.json"  # file name of a wheel: {"sha256", "pieces": how many}


def cut(wheel: Path, folder: Path) -> None:
    """Write the wheel's pieces, and its line into the list."""
    folder.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    with wheel.open("rb") as file:
        while piece := file.read(_PIECE):
            (folder / f"{wheel.name}.{count:03}").write_bytes(piece)
            digest.update(piece)
            count += 1
    listed = _listed(folder)
    listed[wheel.name] = {"sha256": digest.hexdigest(), "pieces": count}
    (folder / _LIST).write_text(json.dumps(listed, indent=1))


def join(folder: Path, target: Path) -> tuple[list[str], dict[str, str]]:
    """Install the wheels whose pieces are all there into the target: their names, and why the others were left out."""
    brought, left_out = [], {}
    for name, wanted in _listed(folder).items():
        pieces = [folder / f"{name}.{i:03}" for i in range(wanted["pieces"])]
        if missing := [piece.name for piece in pieces if not piece.exists()]:
            left_out[name] = f"{len(missing)} of {len(pieces)} pieces did not come"
            continue
        wheel = folder / name
        with wheel.open("wb") as file:
            for piece in pieces:
                file.write(piece.read_bytes())
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != wanted["sha256"]:
            left_out[name] = "its pieces are not those that it was cut into"
            continue
        options = ["--quiet", "--no-index", "--no-deps", "--upgrade", "--target", str(target)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, str(wheel)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            left_out[name] = (done.stderr.strip() or "pip failed").splitlines()[-1]
        else:
            brought.append(name)
    return brought, left_out


def _listed(folder: Path) -> dict[str, dict[str, object]]:
    file = folder / _LIST
    return json.loads(file.read_text()) if file.exists() else {}


def main() -> None:
    """Download, then cut: pieces of before stay where the network fails."""
    from pack import download

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirement", nargs="+", help="NAME==VERSION")
    parser.add_argument("--folder", type=Path, default=CARRIED / "pieces")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as whole:
        for requirement in asked.requirement:
            for wheel in download(requirement, Path(whole)):
                cut(wheel, asked.folder)


if __name__ == "__main__":
    main()
