"""Writes what tests/gpu/check measured into docs/results/gpu.md, and its few figures into the README.

python tests/gpu/page.py benchmarks/gpu.json docs/results/gpu.md README.md
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common import Result

from ahl_train.benchmark.page import write_into

PAGE = ("<!-- figures: written by `make gpu-page` -->", "<!-- /figures -->")
README = ("<!-- gpu: written by `make gpu-page` -->", "<!-- /gpu -->")
Row = Sequence[object]


def page(found: Result) -> str:
    """Markdown of all sections that ran, in the order of the check."""
    machine = found["machine"]
    where = machine.get("card", "no GPU: small sizes on the CPU")
    about = [f"{key} {machine[key]}" for key in ("driver", "cuda", "torch", "python") if key in machine]
    parts = [f"{where}, {machine['cores']} cores; {', '.join(about)}.\n"]
    for name, result in found["sections"].items():
        title, write = _SECTIONS[name]
        body = f"Failed: {result['failed']}\n" if "failed" in result else "\n".join(write(result))
        parts.append(f"### {title}\n\n{body}" + _bars(result.get("bars", ())))
    return "\n".join(parts)


def summary(found: Result) -> str:
    """A table for the README."""
    sections = {name: result for name, result in found["sections"].items() if "failed" not in result}
    rows: list[Row] = []
    if one := sections.get("extraction"):
        rows.append(("Features, frames a second", f"{one['decoded']['float16']:,.0f}", "from decoded pixels"))
        rows.append(("", f"{one['files']['into the store']:,.0f}", "from files, kept"))
    for system in (sections.get("cdl") or {"systems": {}})["systems"].values():
        rows.append((f"An epoch of {system['title']}", f"{system['epoch_s']:.2f} s", "the paper's schedule"))
    if one := sections.get("train"):
        rows.append(("Training the default", f"{one['train_device_s']:.0f} s", "`ahl train`, its start included"))
    where = found["machine"].get("card", "the CPU alone, small sizes")
    return (
        f"On {where} ([docs/results/gpu.md](docs/results/gpu.md)):\n\n" + "\n".join(_table(("", "", ""), rows)) + "\n"
    )


def _extraction(one: Result) -> Iterable[str]:
    feed = one["feed"]
    size = "x".join(map(str, one["shape"][:2]))
    yield f"Frames of {size} px, batches of {feed['batch']}, {feed['workers']} decoders.\n"
    rates = [*one["decoded"].items(), *((f"files: {name}", rate) for name, rate in one["files"].items())]
    yield from _table(("what", "frames a second"), [(name, f"{rate:,.0f}") for name, rate in rates])
    yield "\nDifference from the CPU's float32 features, root mean square over their spread:\n"
    names = list(one["differences"]["float32"])
    rows = [(kind, *(f"{found[n]:.1e}" for n in names)) for kind, found in one["differences"].items()]
    yield from _table(("backbone", *names), rows)
    yield from _top(one["profile"], "four batches")


def _cdl(one: Result) -> Iterable[str]:
    yield f"The {one['schedule']}'s schedule, {one['shots']} shots.\n"
    head = ("system", "s an epoch", "step by step", "first", "kernels a step", "busy", "GB", "before CDL, s")
    yield from _table(
        head,
        [
            (
                s["title"],
                f"{s['epoch_s']:.3f}" + (f" (not replayed: {s['refused']})" if s["refused"] else ""),
                f"{s['one_by_one_s']:.3f}",
                f"{s['first_s']:.2f}",
                s["kernels_a_step"],
                f"{s['profile']['busy']:.0%}",
                s.get("peak_gb", ""),
                f"{s['begin_s']:.1f}",
            )
            for s in one["systems"].values()
        ],
    )
    for system in one["systems"].values():
        yield from _top(system["profile"], f"an epoch of {system['title']}")


def _equality(one: Result) -> Iterable[str]:
    head = ("system", "epochs", "query loss, relative", "score, in spreads of normals", "AUROC")
    rows = [
        (s["title"], s["epochs"], f"{s['loss']:.1e}", f"{s['score']:.1e}", f"{s['auroc']:.4f}")
        for s in one["systems"].values()
    ]
    yield "Largest differences from the CPU, both on float32 features of their own.\n"
    yield from _table(head, rows)


def _train(one: Result) -> Iterable[str]:
    yield (
        f"`ahl train` there {one['train_device_s']:.0f} s, on {one['precision']} features; on the CPU beside it "
        f"{one['train_cpu_s']:.0f} s; `ahl export` {one['export_s']:.0f} s. AUROC on {one['frames']} test frames "
        f"{one['auroc']['device']} and {one['auroc']['cpu']}."
    )


def _tests(one: Result) -> Iterable[str]:
    yield f"{one['passed']} passed, {len(one['broken'])} failed, {sum(map(len, one['skipped'].values()))} skipped."
    yield from (f"- failed: `{bad['test']}`: {bad['why']}" for bad in one["broken"])
    yield from (f"- {len(names)} skipped: {why}" for why, names in one["skipped"].items())


def _engines(one: Result) -> Iterable[str]:
    yield from _table(("engine", "package"), list(one["packages"].items()))
    for name, why in one["left_out"].items():
        yield f"- not brought: {name}: {why}"
    yield "\n`ahl-runtime check` of a bundle that was trained and exported there:\n"
    told = {True: "pass", False: "**fail**", None: "not here"}
    rows = [
        (f"`{e['engine']}`", told[e["passed"]], e["error"] or f"off by {e['largest']:.0e}", f"{e['ms'] or 0:.1f}")
        for e in one["checks"]
    ]
    yield from _table(("engine", "", "", "ms a frame"), rows)


def _grid(one: Result) -> Iterable[str]:
    cell = f", {one['cell_s']:.1f} s a cell" if one["cell_s"] else ""
    done = f"{one['done']} of {one['cells']} cells in {one['seconds']:.0f} s"
    yield f"{one['data']}: {done}, {one['jobs']} at once{cell}.\n"
    yield from _table(("system, setting, shots", "AUROC"), list(one["auroc"].items()))


_SECTIONS = {
    "extraction": ("Features", _extraction),
    "cdl": ("Epochs of CDL", _cdl),
    "equality": ("Equal to the CPU", _equality),
    "train": ("Training and export", _train),
    "tests": ("Tests", _tests),
    "engines": ("The device's engines", _engines),
    "grid": ("The paper's systems on the paper's schedule", _grid),
}


def _top(profile: Result, of: str) -> Iterable[str]:
    yield f"\nWhat takes longest in {of} ({profile['kernels']} kernels, {profile['busy']:.0%} busy):\n"
    rows = [(f"`{t['name'].replace('|', ' ')}`", t["times"], f"{t['ms']:.2f}") for t in profile["top"]]
    yield from _table(("kernel", "times", "ms"), rows)


def _bars(bars: Sequence[Result]) -> str:
    if not bars:
        return "\n"
    rows = []
    for b in bars:
        bound = f"{'at least' if b['least'] else 'at most'} {b['bound']:g}"
        rows.append((b["name"], f"{b['value']:.4g}", bound, "yes" if b["holds"] else "**no**"))
    return "\n\n" + "\n".join(_table(("must hold", "found", "bound", "holds"), rows)) + "\n"


def _table(head: Row, rows: Iterable[Row]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("figures", "page", "readme"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    try:
        found = json.loads(asked.figures.read_text())
        texts = page(found), summary(found)
    except OSError as error:
        sys.stderr.write(f"error: {asked.figures} cannot be read ({error.strerror}): make it with make gpu\n")
        return 2
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        sys.stderr.write(f"error: {asked.figures} does not hold figures of tests/gpu/check ({error!r})\n")
        return 2
    for target, text, markers in zip((asked.page, asked.readme), texts, (PAGE, README), strict=True):
        write_into(target, text, markers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
