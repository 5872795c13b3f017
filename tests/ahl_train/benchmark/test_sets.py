"""All sets in one table: hand-made results of several folders, their means, and folders that don't go together."""

import json
import subprocess
import sys

import pytest

from ahl_train.benchmark.sets import MARKERS, gather, sets_to_markdown, write_sets
from ahl_train.errors import RunError


def line(auroc, data="a", seed=0, setting="general", seen_class=None, shots=1, system="ahl-density", **other):
    return {
        "system": system, "setting": setting, "seen_class": seen_class, "shots": shots, "seed": seed, "auroc": auroc,
        "seconds": 1.0, "data": f"/sets/{data}", "dataset": data, "classes": 2, "schedule": "auto", "epochs": None,
        "epoch": "last", "pixel": False, "backbone": "b", "backbone_digest": "d", **other,
    }  # fmt: skip


def folder(root, name, lines):
    (root / name).mkdir()
    (root / name / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return root / name


def rows(markdown):
    """The cells of each line of its tables, heads and rules left out."""
    found = [[c.strip() for c in text.split("|")[1:-1]] for text in markdown.splitlines() if text.startswith("|")]
    return [cells for cells in found if cells[0] not in ("set", "---")]


def test_a_row_a_set_and_the_mean_under_them(tmp_path):
    folders = [
        folder(tmp_path, "one", [line(0.80), line(0.90, seed=1), line(0.60, shots=10), line(0.60, shots=10, seed=1)]),
        folder(tmp_path, "two", [line(0.95, "b"), line(0.95, "b", 1), line(0.70, "b", system="padim")]),
        folder(tmp_path, "of rivals", [line(0.50, system="padim"), line(0.60, system="padim", seed=1)]),
    ]
    markdown = sets_to_markdown(gather(folders))
    assert "| set | setting | shots | AHL(Density) | PaDiM |" in markdown
    assert rows(markdown) == [
        ["a", "general", "1", "0.850", "0.550"],
        ["b", "general", "1", "0.950", "0.700 (n = 1)"],
        ["**mean of 2 sets**", "general", "1", "**0.900**", "**0.625**"],
        ["a", "general", "10", "0.600", "–"],
        ["**mean of 1 set**", "general", "10", "**0.600**", "–"],
    ]
    assert "mean over 2 seeds" in markdown
    assert "anomalib's" in markdown


def test_no_mean_that_leaves_a_set_out(tmp_path):
    folders = [
        folder(tmp_path, "one", [line(0.8), line(0.9, system="padim")]),
        folder(tmp_path, "two", [line(0.6, "b")]),
    ]
    assert rows(sets_to_markdown(gather(folders)))[-1][3:] == ["**0.700**", "–"]


def test_the_hard_setting_counts_by_its_mean_over_all_classes(tmp_path):
    def hard(data, crack, dirt, **other):
        return [line(s, data, setting="hard", seen_class=c, **other) for s, c in ((crack, "crack"), (dirt, "dirt"))]

    folders = [
        folder(tmp_path, "one", [*hard("a", 0.7, 0.9), line(0.5), *hard("a", 0.1, 0.2, system="dra")[:1]]),
        folder(tmp_path, "two", [*hard("b", 0.5, 0.7), *hard("b", 0.4, 0.4, system="dra")]),
    ]
    assert rows(sets_to_markdown(gather(folders))) == [
        ["a", "general", "1", "–", "0.500"],
        ["**mean of 1 set**", "general", "1", "–", "**0.500**"],
        ["a", "hard", "1", "–", "0.800"],
        ["b", "hard", "1", "0.400", "0.600"],
        ["**mean of 2 sets**", "hard", "1", "–", "**0.700**"],
    ]


def test_the_best_epoch_is_a_table_of_its_own(tmp_path):
    folders = [
        folder(tmp_path, "one", [line(0.8, epoch="best", auroc_best=0.9)]),
        folder(tmp_path, "two", [line(0.6, "b", epoch="best", auroc_best=0.8)]),
    ]
    last, best = sets_to_markdown(gather(folders)).split("Best epoch, chosen on the test images:\n")
    assert [rows(part)[-1][-1] for part in (last, best)] == ["**0.700**", "**0.850**"]


def test_pixels_have_tables_of_their_own(tmp_path):
    masked = {"pixel": True, "pixel_auroc": 0.9, "pixel_aupro": 0.7}
    folders = [
        folder(tmp_path, "one", [line(0.8, **masked)]),
        folder(tmp_path, "two", [line(0.6, "b", pixel=True)]),
    ]
    of_regions = sets_to_markdown(gather(folders)).split("AUPRO of the pixels")[1]
    assert rows(of_regions) == [["a", "general", "1", "0.700"], ["**mean of 1 set**", "general", "1", "**0.700**"]]


def test_sets_of_one_name_are_told_apart(tmp_path):
    folders = [folder(tmp_path, name, [line(0.8, f"{name}/a", dataset="a")]) for name in ("one", "two")]
    assert [cells[0] for cells in rows(sets_to_markdown(gather(folders)))[:2]] == ["a (/sets/one/a)", "a (/sets/two/a)"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(0.8)], "one and .*two both hold /sets/a, ahl-density, general, shots 1, seed 0: leave one of them out"),
        ([line(0.8, "b", epochs=3)], r"two holds .* other settings than .*one \(epochs: 3, not None\): leave it out"),
        ([line(0.8, "b", epoch="best", auroc_best=1.0)], r"\(epoch: 'best', not 'last'\)"),
        ([], "two has no results yet: run ahl benchmark --out .*two, or leave it out"),
    ],
)
def test_folders_that_do_not_go_together(tmp_path, lines, said):
    folders = [folder(tmp_path, "one", [line(0.8)]), folder(tmp_path, "two", lines)]
    with pytest.raises(RunError, match=said):
        gather(folders)


def test_into_a_page(tmp_path):
    folders = [folder(tmp_path, "one", [line(0.8)]), folder(tmp_path, "two", [line(0.6, "b")])]
    page = tmp_path / "page.md"
    page.write_text(f"head\n{MARKERS[0]}\nold\n{MARKERS[1]}\ntail\n")
    assert write_sets(folders, page) == page
    assert page.read_text() == f"head\n{MARKERS[0]}\n{sets_to_markdown(gather(folders))}{MARKERS[1]}\ntail\n"


@pytest.mark.slow
def test_the_command(tmp_path):
    folders = [folder(tmp_path, "one", [line(0.8)]), folder(tmp_path, "two", [line(0.6, "b")])]

    def table(*arguments):
        command = [sys.executable, "-m", "ahl_export.cli.main", "benchmark", "table", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    printed = table(*folders)
    assert (printed.returncode, printed.stdout) == (0, sets_to_markdown(gather(folders)))
    assert [file.name for file in folders[0].iterdir()] == ["results.jsonl"]
    assert table(folders[0]).stdout.split() == [str(folders[0] / f"table.{kind}") for kind in ("md", "html", "csv")]
    missing = table(*folders, tmp_path / "three")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: ")
    assert "three/results.jsonl cannot be read" in missing.stderr
    (tmp_path / "page.md").write_text("no place for it\n")
    assert "lacks the markers" in table(*folders, "--page", tmp_path / "page.md").stderr
