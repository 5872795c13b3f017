"""The guard against slower code. It compares speed ratios of a short run with committed ratios, never absolute times.

python -m benchmarks.guard BUNDLE benchmarks/baseline.json [--write] prints the ratios. The exit code is 1 if one
of them is below the bound.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.engines.base import cores
from ahl_runtime.tuning.measure import Worker, in_turn
from ahl_train.features import Extractor
from ahl_train.features.backbone import BackboneSpec
from benchmarks.speed.models import write_backbone
from benchmarks.speed.scoring import PAPER, ratios
from benchmarks.speed.training import compare

BOUND = 2.0  # a ratio may fall to one half: other machines and busy machines differ this much
_SECONDS, _ROUNDS = 3.0, 3


def measure(bundle_path: Path, seconds: float = _SECONDS) -> dict[str, float]:
    """Speed ratios by name: the time of the other program over that of our code. Higher is better."""
    bundle = open_bundle(bundle_path)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        backbone = write_backbone(Path(folder) / "backbone.onnx", BackboneSpec())
        workers = [
            Worker("ours", "ahl_runtime.tuning.bench_worker", bundle_path, bundle.digest, "onnxruntime"),
            Worker("bare backbone", "benchmarks.speed.contestant", "onnxruntime", backbone),
            Worker(PAPER, "benchmarks.speed.contestant", "paper"),
        ]
        found = in_turn([stack.enter_context(w) for w in workers], seconds, _ROUNDS, cores(None))
    scoring = ratios({one.name: one for one in found}, "ours")
    cdl = compare("ahl-density", Extractor(BackboneSpec()), epochs=_ROUNDS)
    return {**{f"scoring: {name}": values[0] for name, values in scoring.items()}, "batched CDL": cdl["ratio"][0]}


def judge(found: dict[str, float], baseline: dict[str, float]) -> tuple[list[str], bool]:
    """A line for each ratio, and whether all are within the bound. A ratio that only one side has is a failure."""
    lines, good = [], True
    for name in sorted(found.keys() | baseline.keys()):
        if name not in found or name not in baseline:
            lines.append(f"{name}: only {'measured' if name in found else 'in the baseline'}: write the baseline again")
            good = False
            continue
        slower = baseline[name] / found[name]
        verdict = "ok" if slower <= BOUND else f"slower by more than {BOUND:g}"
        good &= slower <= BOUND
        lines.append(f"{name}: {found[name]:.2f}, baseline {baseline[name]:.2f}: {verdict}")
    return lines, good


def main(bundle: Path, baseline: Path, write: bool) -> int:
    """Measure and print the ratios. `write`: save them as the baseline. Returns the exit code."""
    found = measure(bundle)
    if write:
        baseline.parent.mkdir(exist_ok=True)
        baseline.write_text(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1) + "\n")
    lines, good = judge(found, json.loads(baseline.read_text()))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), "--write" in sys.argv[3:]))
