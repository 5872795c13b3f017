"""The benchmark's table: mean and spread over seeds beside the paper's figures, as Markdown, HTML and CSV."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from ahl_train.benchmark.page import write, write_into
from ahl_train.benchmark.results import SAME, Result, read_results
from ahl_train.benchmark.rivals import RIVALS, SAID
from ahl_train.data.readers import READERS
from ahl_train.errors import ConfigError, RunError
from ahl_train.evaluation import FPR_LIMIT
from ahl_train.systems import SYSTEMS, system

MEAN = "mean"  # the hard setting's row of means over its classes
UNKNOWN = "–"
# Figures that a result may have besides its AUROC: the heading of their table, their name in the CSV.
MORE = {
    "auroc_best": ("best epoch, chosen on the test images", "best_on_test"),
    "pixel_auroc": ("AUROC of the pixels", "pixel_auroc"),
    "pixel_aupro": (f"AUPRO of the pixels, up to a false-positive rate of {FPR_LIMIT}", "pixel_aupro"),
}
BEST_SAID = (
    "Best epoch: of all epochs of a training the one with the highest AUROC on the test images, as the paper's code "
    "reports it. It is chosen on the test images, and so higher than what a model reaches on images it has never met."
)
MARKERS = ("<!-- table: written by ahl benchmark table -->", "<!-- /table -->")
# Our folder names for classes that the paper's tables name differently; other names differ in case and signs only.
_ALIASES = {"barrettsshortsegment": "barrettsshortseg", "carpets": "carpet", "metalcontamination": "metal"}
_OF_PAPER = ("auroc", "auroc_best")
_DOUBTFUL = {("metalnut", "scratch", 1)}  # shifted in the source (the note in paper_tables.json)


class Figure(NamedTuple):
    """An AUROC: mean and standard deviation over seeds."""

    mean: float
    std: float


class Row(NamedTuple):
    """What a row of the table shows."""

    data: str
    dataset: str
    setting: str
    seen_class: str  # "" in the general setting, MEAN over the classes


class Column(NamedTuple):
    """What a column of the table shows."""

    shots: int
    system: str


@dataclass(frozen=True)
class Entry:
    """A cell of the table."""

    ours: Figure
    seeds: int
    paper: Figure | None

    @property
    def difference(self) -> float | None:
        return None if self.paper is None else self.ours.mean - self.paper.mean


Entries = dict[tuple[Row, Column], Entry]


@dataclass(frozen=True)
class Table:
    """The whole table. A cell that has not been run has no entry."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    entries: Entries
    more: dict[str, Entries]  # by figure, for each of MORE that the results have
    made: dict[str, Any]  # schedule, epochs, backbone

    @property
    def shots(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(c.shots for c in self.columns))

    @property
    def systems(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.system for c in self.columns))

    @property
    def seeds(self) -> int:
        return max(entry.seeds for entry in self.entries.values())


def write_tables(folder: Path, page: Path | None = None) -> tuple[Path, ...]:
    """Write table.md, table.html and table.csv next to results.jsonl, and table.md between the `MARKERS` of a page.

    RunError if there are no results, or if the page has no markers.
    """
    table = tabulate(read_results(folder))
    texts = {"table.md": to_markdown(table), "table.html": to_html(table), "table.csv": to_csv(table)}
    written = tuple(write(folder / name, text) for name, text in texts.items())
    untitled = to_markdown(table).partition("\n\n")[2]
    return (*written, write_into(page, untitled, MARKERS)) if page else written


def load_paper() -> dict[str, Any]:
    """The paper's tables: general[dataset][shots][system] and hard[dataset][class][shots][system], [mean, std]."""
    tables: dict[str, Any] = json.loads((files("ahl_train.benchmark") / "paper_tables.json").read_text("utf-8"))
    return tables


def tabulate(results: Sequence[Result]) -> Table:
    """Rows, columns and entries of the results. RunError if there are none."""
    if not results:
        raise RunError("the benchmark has no results yet: run ahl benchmark")
    entries = _entries(results, "auroc")
    more = {figure: found for figure in MORE if (found := _entries(results, figure))}
    order = [*SYSTEMS, *RIVALS]
    rows = sorted({row for row, _ in entries}, key=lambda r: (*r[:3], r.seen_class == MEAN, r.seen_class))
    columns = sorted(
        {c for _, c in entries}, key=lambda c: (c.shots, order.index(c.system) if c.system in order else len(order))
    )
    return Table(tuple(rows), tuple(columns), entries, more, {key: results[0][key] for key in SAME})


def _entries(results: Sequence[Result], figure: str) -> Entries:
    """Mean and spread over seeds of one figure. Only AUROCs of images have the paper's figures beside them."""
    scores: dict[tuple[Row, Column], dict[int, float]] = defaultdict(dict)
    for r in (r for r in results if figure in r):
        row = Row(r["data"], r["dataset"], r["setting"], r["seen_class"] or "")
        scores[row, Column(r["shots"], r["system"])][r["seed"]] = r[figure]
    of_hard = {(r["data"], r["dataset"]): r["classes"] for r in results if r["setting"] == "hard"}
    scores |= {k: v for (data, name), count in of_hard.items() for k, v in _means(scores, data, name, count).items()}
    paper = load_paper()
    classes = {
        data: {row.seen_class for row, _ in scores if (row.data, row.setting) == (data, "hard")} for data, _ in of_hard
    }
    entries = {}
    for (row, column), by_seed in scores.items():
        ours = Figure(fmean(by_seed.values()), pstdev(by_seed.values()))
        theirs = paper_figure(paper, row, column, classes.get(row.data, ())) if figure in _OF_PAPER else None
        entries[row, column] = Entry(ours, len(by_seed), theirs)
    return entries


def paper_figure(paper: dict[str, Any], row: Row, column: Column, classes: Iterable[str] = ()) -> Figure | None:
    """The paper's figure, for published sets only. MEAN has one only if ``classes`` are the paper's classes."""
    if row.data.partition(":")[0] not in READERS.built_in:
        return None
    block = _named(paper[row.setting], row.dataset.removeprefix("mvtec/"))
    if row.setting == "hard":
        theirs = {_plain(name) for name in block} - {MEAN}
        if row.seen_class == MEAN and {_plain(name) for name in classes if name != MEAN} != theirs:
            return None
        if (_plain(row.dataset.removeprefix("mvtec/")), _plain(row.seen_class), column.shots) in _DOUBTFUL:
            return None
        block = _named(block, row.seen_class)
    found = block.get(str(column.shots), {}).get(title(column.system))
    return Figure(*found) if found else None


def to_markdown(table: Table) -> str:
    """A table per number of shots, three lines in a cell; below it a table for each of MORE that the results have."""
    lines = ["# Benchmark", "", *_explained(table)]
    for shots in table.shots:
        columns = [c for c in table.columns if c.shots == shots]
        lines += ["", f"## {_shots(shots)}", "", *_lines(table, columns, "auroc")]
        for figure in table.more:
            lines += ["", f"### {_shots(shots)}, {MORE[figure][0]}", "", *_lines(table, columns, figure)]
    return "\n".join(lines) + "\n"


def _lines(table: Table, columns: Sequence[Column], figure: str) -> Iterator[str]:
    heads = ["dataset", "setting", "seen class", *(title(c.system) for c in columns)]
    yield line_of(heads)
    yield line_of(["---"] * 3 + ["---:"] * len(columns))
    for row in table.rows:
        yield line_of([*row[1:], *("<br>".join(_parts(table, row, c, figure)) for c in columns)])


def to_html(table: Table) -> str:
    """One page that needs no network."""
    tables = [_html(table, "auroc")]
    for figure in table.more:
        tables += [f"<h2>{escape(headline(figure))}</h2>", _html(table, figure)]
    return _PAGE.format(
        explained="".join(f"<p>{escape(line)}</p>" for line in _explained(table) if line), tables="\n".join(tables)
    )


def _html(table: Table, figure: str) -> str:
    groups = "".join(f'<th colspan="{sum(c.shots == s for c in table.columns)}">{_shots(s)}</th>' for s in table.shots)
    heads = "".join(f"<th>{escape(title(c.system))}</th>" for c in table.columns)
    rows = []
    for row in table.rows:
        names = "".join(f"<th>{escape(name)}</th>" for name in row[1:])
        cells = (_parts(table, row, c, figure) for c in table.columns)
        marked = "".join(f"<td><b>{first}</b>{''.join(f'<br>{r}' for r in rest)}</td>" for first, *rest in cells)
        rows.append(f"<tr>{names}{marked}</tr>")
    return _TABLE.format(groups=groups, heads=heads, rows="\n".join(rows))


_CSV = ("dataset", "setting", "seen_class", "shots", "system", "mean", "std", "seeds")
_CSV_PAPER = ("paper_mean", "paper_std", "difference")


def to_csv(table: Table) -> str:
    """One line per entry, with all digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    more_heads = [f"{MORE[figure][1]}_{part}" for figure in table.more for part in Figure._fields]
    writer.writerow([*_CSV, *_CSV_PAPER, *more_heads])
    for row in table.rows:
        for column in table.columns:
            if entry := table.entries.get((row, column)):
                paper = (*entry.paper, entry.difference) if entry.paper else (UNKNOWN,) * 3
                more = (found.get((row, column)) for found in table.more.values())
                others = (number for one in more for number in (one.ours if one else (UNKNOWN,) * 2))
                numbers = (*entry.ours, entry.seeds, *paper, *others)
                writer.writerow([*row[1:], *column, *(round(n, 6) if isinstance(n, float) else n for n in numbers)])
    return out.getvalue()


def _means(
    scores: dict[tuple[Row, Column], dict[int, float]], data: str, dataset: str, count: int
) -> dict[tuple[Row, Column], dict[int, float]]:
    """The mean over the hard setting's classes, for each seed that has all ``count`` of them."""
    gathered: dict[tuple[Column, int], list[float]] = defaultdict(list)
    for (row, column), by_seed in scores.items():
        if (row.data, row.setting) == (data, "hard"):
            for seed, score in by_seed.items():
                gathered[column, seed].append(score)
    means: dict[tuple[Row, Column], dict[int, float]] = defaultdict(dict)
    for (column, seed), found in gathered.items():
        if len(found) == count:
            means[Row(data, dataset, "hard", MEAN), column][seed] = fmean(found)
    return means


def _parts(table: Table, row: Row, column: Column, figure: str) -> list[str]:
    """The lines of a cell: our figure, and for images also the paper's and the difference."""
    entry = (table.more.get(figure) or table.entries).get((row, column))
    if entry is None:
        return [UNKNOWN]
    ours = _number(entry.ours) + (f" (n = {entry.seeds})" if entry.seeds < table.seeds else "")
    if figure not in _OF_PAPER:
        return [ours]
    if entry.paper is None:
        return [ours, UNKNOWN, UNKNOWN]
    return [ours, _number(entry.paper), f"{entry.ours.mean - entry.paper.mean:+.3f}"]


def _explained(table: Table) -> list[str]:
    return [
        f"AUROC on the test images, mean ± standard deviation over {table.seeds} seeds; under it the paper's figure, "
        f"and ours less the paper's. {UNKNOWN}: not run, or not in the paper.",
        "",
        f"{settings_of(table)} The paper's: ResNet-18.",
        *notes(table),
    ]


def settings_of(table: Table) -> str:
    """One sentence that states schedule, epochs and backbone."""
    made = table.made
    epochs = f" ({made['epochs']} epochs)" if made["epochs"] else ""
    return f"Ours: schedule {made['schedule']}{epochs}, backbone {made['backbone']}."


def notes(table: Table) -> list[str]:
    """Notes on rivals and on the best epoch, if the table has them: paragraphs, each after an empty line."""
    return [
        *(("", SAID) if any(name in RIVALS for name in table.systems) else ()),
        *(("", BEST_SAID) if "auroc_best" in table.more else ()),
    ]


def _number(figure: Figure) -> str:
    return f"{figure.mean:.3f} ± {figure.std:.3f}"


def _shots(shots: int) -> str:
    return f"{shots} shot{'s' if shots != 1 else ''}"


def headline(figure: str) -> str:
    """The heading of the table of one of MORE."""
    head = MORE[figure][0]
    return head[0].upper() + head[1:]


def title(name: str) -> str:
    """A system's title in the tables, or its name if its plug-in is not installed."""
    if name in RIVALS:
        return RIVALS[name].title
    try:
        return system(name).title
    except ConfigError:
        return name


def line_of(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(name: str) -> str:
    letters = "".join(c for c in name.casefold() if c.isalnum())
    return _ALIASES.get(letters, letters)


def _named(block: dict[str, Any], name: str) -> dict[str, Any]:
    return next((value for key, value in block.items() if _plain(key) == _plain(name)), {})


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmark</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 32px; color: #1d2329; background: #fbfbf9; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 12px; border-bottom: 1px solid #e3e5e2; text-align: right; white-space: nowrap; }}
tbody th {{ text-align: left; font-weight: 500; }}
td {{ color: #5b6570; font-size: 13px; }}
td b {{ color: #1d2329; font-size: 15px; }}
</style>
</head>
<body>
<h1>Benchmark</h1>
{explained}
{tables}
</body>
</html>
"""
_TABLE = """<table>
<thead>
<tr><th colspan="3"></th>{groups}</tr>
<tr><th>dataset</th><th>setting</th><th>seen class</th>{heads}</tr>
</thead>
<tbody>
{rows}
</tbody>
</table>"""
