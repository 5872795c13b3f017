"""One table of all sets: a row per set, a column per system, means over seeds; below them the mean over the sets."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from ahl_train.benchmark.page import write_into
from ahl_train.benchmark.results import SAME, Cell, Result, read_results
from ahl_train.benchmark.table import (
    MEAN,
    UNKNOWN,
    Column,
    Entries,
    Entry,
    Row,
    Table,
    headline,
    line_of,
    notes,
    settings_of,
    tabulate,
    title,
)
from ahl_train.errors import RunError

MARKERS = ("<!-- sets: written by ahl benchmark table -->", "<!-- /sets -->")


def write_sets(folders: Sequence[Path], page: Path) -> Path:
    """Write the table of several benchmarks between the page's `MARKERS`. RunError, also if the page has no markers."""
    return write_into(page, sets_to_markdown(gather(folders)), MARKERS)


def gather(folders: Sequence[Path]) -> list[Result]:
    """The results of several benchmarks, on the same sets or on different ones.

    RunError if a benchmark has no results, has other settings than the first, or has a cell that another has too.
    """
    gathered: list[Result] = []
    holders: dict[tuple[str, Cell], Path] = {}
    for folder in folders:
        results = read_results(folder)
        if not results:
            raise RunError(f"{folder} has no results yet: run ahl benchmark --out {folder}, or leave it out")
        for line in results:
            _require_comparable(line, folder, (gathered or results)[0], folders[0])
            cell = line["data"], Cell.of(line)
            if other := holders.get(cell):
                raise RunError(f"{other} and {folder} both hold {line['data']}, {cell[1]}: leave one of them out")
        holders |= {(line["data"], Cell.of(line)): folder for line in results}
        gathered += results
    return gathered


def sets_to_markdown(results: Sequence[Result]) -> str:
    """One table, then one for each of MORE that the results have. RunError if there are no results."""
    table = tabulate(results)
    lines = [
        f"AUROC on the test images, mean over {table.seeds} seeds; in the hard setting over the classes too. "
        f"{UNKNOWN}: not run on all classes; a mean over sets needs all of them.",
        "",
        settings_of(table),
        *notes(table),
        "",
        *_lines(table, table.entries),
    ]
    for figure, entries in table.more.items():
        lines += ["", f"{headline(figure)}:", "", *_lines(table, entries)]
    return "\n".join(lines) + "\n"


def _lines(table: Table, entries: Entries) -> Iterator[str]:
    yield line_of(["set", "setting", "shots", *map(title, table.systems)])
    yield line_of(["---", "---", "---:", *["---:"] * len(table.systems)])
    names = _names(table)
    for setting in dict.fromkeys(row.setting for row in table.rows):
        for shots in table.shots:
            columns = [Column(shots, name) for name in table.systems]
            ran = {row[:2] for row, column in entries if row.setting == setting and column.shots == shots}
            sets = [one for one in names if one in ran]
            of_sets = [[entries.get((_row(*one, setting), column)) for column in columns] for one in sets]
            for one, found in zip(sets, of_sets, strict=True):
                cells = [_number(entry, table.seeds) for entry in found]
                yield line_of([names[one], setting, str(shots), *cells])
            if sets:
                means = [_mean(column) for column in zip(*of_sets, strict=True)]
                yield line_of([f"**mean of {_count(len(sets))}**", setting, str(shots), *means])


def _names(table: Table) -> dict[tuple[str, str], str]:
    """(data, dataset) of each set, in the table's order, to its name; sets with equal names also show their data."""
    sets = dict.fromkeys(row[:2] for row in table.rows)
    alike = Counter(dataset for _, dataset in sets)
    return {(data, dataset): dataset if alike[dataset] == 1 else f"{dataset} ({data})" for data, dataset in sets}


def _row(data: str, dataset: str, setting: str) -> Row:
    return Row(data, dataset, setting, MEAN if setting == "hard" else "")


def _number(entry: Entry | None, seeds: int) -> str:
    if entry is None:
        return UNKNOWN
    return f"{entry.ours.mean:.3f}" + (f" (n = {entry.seeds})" if entry.seeds < seeds else "")


def _mean(entries: Sequence[Entry | None]) -> str:
    """The mean over all sets, or UNKNOWN if one is missing: means over different sets cannot be compared."""
    found = [entry.ours.mean for entry in entries if entry]
    return f"**{fmean(found):.3f}**" if len(found) == len(entries) else UNKNOWN


def _count(count: int) -> str:
    return f"{count} set{'s' if count != 1 else ''}"


def _require_comparable(line: Result, folder: Path, first: Result, whose: Path) -> None:
    other = [f"{key}: {line[key]!r}, not {first[key]!r}" for key in SAME if line[key] != first[key]]
    if other:
        raise RunError(
            f"{folder} holds results of other settings than {whose} ({'; '.join(other)}): "
            "leave it out, or run it again with those"
        )
