"""Checks whether a folder holds a complete published set: compares its counts with Table 1."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ahl_train.data.samples import GOOD, Dataset, quarter
from ahl_train.data.table1 import MVTEC, SETS, Expected
from ahl_train.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One count; `expected` is None if no source states it."""

    group: str
    found: int
    expected: int | None

    @property
    def ok(self) -> bool:
        return self.expected is None or self.found == self.expected

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.group:<36} found {self.found:>6,}"
        short = self.expected - self.found
        verdict = "ok" if not short else f"{short:,} missing" if short > 0 else f"{-short:,} too many"
        return f"{self.group:<36} found {self.found:>6,}   expected {self.expected:>6,}   {verdict}"


@dataclass(frozen=True)
class Report:
    """The result of `check`; `ok` if every count is as expected and every named file exists."""

    name: str
    root: Path
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def lines(self) -> list[str]:
        """The lines to print: one per count, the notes, the verdict."""
        wrong = sum(not row.ok for row in self.rows)
        verdict = "complete" if self.ok else f"{wrong} of {len(self.rows)} counts differ"
        return [*map(str, self.rows), *(f"note: {n}" for n in self.notes), f"{self.name} in {self.root}: {verdict}"]


def check_set(name: str, root: Path, read: Callable[[Path], Dataset]) -> Report:
    """Compare a set with its row of Table 1. For mvtec: all fifteen rows or, in a category's folder, one.

    DataError if the folder does not have the set's layout.
    """
    if name == "mvtec":
        return _check_mvtec(root, read)
    return _report(name, read(root), SETS[name])


def _check_mvtec(root: Path, read: Callable[[Path], Dataset]) -> Report:
    if not root.is_dir():
        raise DataError(f"mvtec: no folder {root}")
    if root.name in MVTEC and not (root / root.name).is_dir():
        return _report("mvtec", read(root), MVTEC[root.name])
    rows: list[Row] = []
    for category, expected in MVTEC.items():
        folder = root / category
        data = read(folder) if (folder / "train" / GOOD).is_dir() else Dataset(category, (), folder)
        rows += _rows(data, expected, f"{category}: ")
    return Report("mvtec", root, tuple(rows), tuple(row.note for row in MVTEC.values() if row.note))


def _report(name: str, data: Dataset, expected: Expected) -> Report:
    notes = (*data.notes, *([expected.note] if expected.note else []))
    return Report(name, data.root, tuple(_rows(data, expected)), notes)


def _rows(data: Dataset, expected: Expected, prefix: str = "") -> Iterable[Row]:
    normals = len(data.normals)
    test = len(data.own_test_normals()) or quarter(normals)
    yield Row(f"{prefix}normal, train", normals - test, expected.train_normal)
    yield Row(f"{prefix}normal, test", test, expected.test_normal)
    yield Row(f"{prefix}anomaly", len(data.anomalies), expected.anomaly)
    yield Row(f"{prefix}anomaly classes", len(data.classes), expected.classes)
    counts = data.counts()
    for kind in sorted({*expected.by_class, *data.classes}):
        yield Row(f"{prefix}anomaly, {kind}", counts.get(kind, 0), expected.by_class.get(kind))
    absent = sum(not f.is_file() for f in {s.path for s in data.samples} | {s.mask for s in data.samples if s.mask})
    yield Row(f"{prefix}files named but absent", absent, 0)
