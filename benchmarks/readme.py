"""Write the figures of the demo and the name of the machine into the README: make figures."""

import json
import sys
from pathlib import Path

from ahl_runtime.core.machine import machine
from ahl_train.benchmark.page import write_into

MARKERS = ("<!-- figures: written by `make figures` -->", "<!-- /figures -->")


def table(figures: dict[str, float]) -> str:
    """The figures of report.json as a Markdown table."""
    rows = (
        ("AUROC, test", f"{figures['auroc']:.3f}", "AHL(DRA) in the paper, ResNet-18: 0.850"),
        ("False rejects, test normals", f"{figures['false_reject_rate']:.2%}", f"promised: {figures['alpha']:.0%}"),
        ("Detected at that threshold", f"{figures['detection_rate']:.1%}", "of defects of all kinds"),
        ("Trained on", f"{figures['n_train_normal']} + 10", "normals + defects"),
        ("Calibrated on", f"{figures['n_calibration']}", "normals that training never saw"),
        ("Tested on", f"{figures['n_test_normal']} + {figures['n_test_anomaly']}", "normals + defects"),
        ("Training, features included", f"{figures['train_seconds']:.0f} s", ""),
        ("Export, proof and calibration", f"{figures['export_seconds']:.0f} s", ""),
        (
            "Scoring a decoded frame, p50",
            f"{figures['score_ms_p50']:.0f} ms",
            "ONNX Runtime, 448 + 224 px, with its map",
        ),
    )
    body = "\n".join(f"| {name} | {value} | {note} |" for name, value, note in rows)
    return f"ELPV, 10 shots, seed 0, by `make demo` on {machine()}:\n\n| | | |\n|---|---|---|\n{body}\n"


if __name__ == "__main__":
    report, readme_path = (Path(p) for p in sys.argv[1:3])
    write_into(readme_path, table(json.loads(report.read_text())), MARKERS)
