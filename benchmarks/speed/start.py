"""The bench of starting: time from a cold start to the first decision, sizes of artefacts and of the installation."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ahl_runtime import engines
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.tuning.bench import cold_starts


def measure(bundle: Bundle) -> dict[str, Any]:
    """`cold_start_s` ([median, quartiles]) and `artefact_mb` by engine; `install_mb` by package, plain install."""
    names = [name for name in engines.available(bundle) if name in ("onnxruntime", "onnxruntime-int8", "openvino")]
    starts = cold_starts(bundle, names)
    members = bundle.manifest.members
    return {
        "cold_start_s": {n: [s.median, s.low, s.high] for n, s in zip(names, starts, strict=True)},
        "artefact_mb": {n: sum(members[file].size for file in engines.artefact(bundle, n).files) / 1e6 for n in names},
        "install_mb": {name: installed(name) / 1e6 for name in sorted(plain_install())},
    }


def plain_install() -> set[str]:
    """The packages that `pip install ahl` installs, as far as they are installed here."""
    found: set[str] = set()
    waiting = ["ahl"]
    while waiting:
        name = waiting.pop()
        try:
            wanted = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue
        found.add(name)
        plain = (r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""}))
        waiting += {canonicalize_name(r.name) for r in plain} - found
    return found - {"ahl"}


def installed(package: str) -> int:
    """The size of the files of a package in bytes."""
    files = distribution(package).files or ()
    return sum(path.stat().st_size for file in files if (path := Path(file.locate())).is_file())
