"""Write the figures of the bench as tables into docs/results/speed.md, between the markers of each section."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ahl_train.benchmark.page import write_into
from benchmarks.speed.scoring import PAPER

_SHOWN = ("ahl", "anomalib", "numpy", "onnxruntime", "openvino", "python", "timm", "torch")


def write_section(page: Path, section: str, found: dict[str, Any]) -> None:
    """Write the tables of a section. RunError if the page or its markers are missing."""
    tables = {"scoring": scoring, "serving": serving, "training": training, "start": start}[section](found)
    write_into(page, f"{_origin(found)}\n\n{tables}", markers(section))


def markers(section: str) -> tuple[str, str]:
    """The markers of a section in the page."""
    return f"<!-- {section}: written by `make bench` -->", f"<!-- /{section} -->"


def scoring(found: dict[str, Any]) -> str:
    """The tables of scoring: figures of each contestant, ratios of our engines, stages."""
    rows = [
        (
            name,
            f"{r['score_ms_p50']:.1f} ({r['score_ms_iqr'][0]:.1f} to {r['score_ms_iqr'][1]:.1f})",
            f"{r['score_ms_p99']:.1f}",
            f"{r['frames_per_second']:.1f}, {r['saturated_by']}",
            f"{r['rss_mb']:.0f} ({r['rss_peak_mb']:.0f})",
        )
        for name, r in found["rows"].items()
    ]
    timed = table(("", "ms p50 (IQR)", "ms p99", "frames/s, saturated by", "MB (peak)"), rows)
    ratios = table(
        ("times as fast as", *(f"`{name}`" for name in found["ratios"])),
        [
            (other, *(_ratio(own.get(other)) for own in found["ratios"].values()))
            for other in dict.fromkeys(key for own in found["ratios"].values() for key in own)
        ],
    )
    stages = table(("of the float32 graph, one thread", "ms"), [(k, f"{v:.1f}") for k, v in found["stages_ms"].items()])
    return f"{timed}\n{ratios}\n{stages}"


def bars(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The ratios of each of our engines for which the project sets a limit."""
    result = {}
    for name, own in found["ratios"].items():
        fastest = {
            side: min(value[0] for key, value in own.items() if key.startswith("anomalib") and f"{side} px" in key)
            for side in (256, 448)
        }
        bare = "openvino" if name == "openvino" else "onnxruntime"
        result[name] = {
            "paper": own[PAPER][0],
            "anomalib at 448 px": fastest[448],
            "anomalib at 256 px": fastest[256],
            "bare backbone's share": own[f"bare backbone, {bare}"][0],
            "saturated, against one core": own["saturated, against one core"][0],
        }
    return result


def serving(found: dict[str, Any]) -> str:
    """The table of serving: HTTP and the folder compared with the bare session."""
    rows = [
        (
            f"`{name}`",
            _spread(r["bare_fps"]),
            _spread(r["http_fps"]),
            _spread(r["http_share"]),
            f"{r['http_ms_p50']:.0f}, {r['http_ms_p99']:.0f}",
            _spread(r["folder_fps"]),
            _spread(r["folder_share"]),
        )
        for name, r in found["rows"].items()
    ]
    http = f"HTTP, {found['clients']} clients"
    head = ("", "bare session, frames/s", f"{http}, frames/s", "share", "ms p50, p99", "folder, frames/s", "share")
    return table(head, rows)


def training(found: dict[str, Any]) -> str:
    """The tables of training: CDL compared with the sequential loop, the parts, growth with N."""
    cdl = table(
        ("one epoch of CDL", "batched s (IQR)", "sequential s (IQR)", "times as fast", "largest difference"),
        [
            (name, _spread(r["batched_s"]), _spread(r["sequential_s"]), _ratio(r["ratio"]), f"{r['largest']:.0e}")
            for name, r in found["cdl"].items()
        ],
    )
    parts = table(("part", "", ""), [(name, f"{v:.3g} {unit}", note) for name, v, unit, note in found["parts"]])
    growth = table(
        ("train normals", "HADG s", "CDL s an epoch", "all but features s", "MB at most"),
        [
            (f"{r['n']:,}", f"{r['hadg_s']:.2f}", f"{r['epoch_s']:.2f}", f"{r['learn_s']:.1f}", f"{r['peak_mb']:.0f}")
            for r in found["growth"]
        ],
    )
    return f"{cdl}\n{parts}\n{growth}"


def start(found: dict[str, Any]) -> str:
    """The table of starting: cold start and sizes."""
    rows = [
        (f"`{name}`", _spread(found["cold_start_s"][name]), f"{found['artefact_mb'][name]:.1f}")
        for name in found["cold_start_s"]
    ]
    sizes = found["install_mb"]
    largest = ", ".join(f"{name} {mb:.0f}" for name, mb in sorted(sizes.items(), key=lambda item: -item[1])[:4])
    return (
        table(("engine", "first decision after s (IQR)", "artefact MB"), rows)
        + f"\nPlain install: {sum(sizes.values()):.0f} MB in {len(sizes)} packages; the largest: {largest}.\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = (f"| {' | '.join(line)} |\n" for line in (head, *rows))
    return first + "|---" * len(head) + "|\n" + "".join(others)


def _origin(found: dict[str, Any]) -> str:
    place = found["machine"]
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in _SHOWN if name in found["versions"])
    return f"`{found['command']}`, {found['when'][:10]}, {place['cores']} cores of an {place['cpu']}; {versions}."


def _spread(values: Sequence[float]) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def _ratio(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"
