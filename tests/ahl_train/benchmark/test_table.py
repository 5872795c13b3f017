"""The bench's table: means, spreads and differences of hand-made results, beside the paper's figures."""

import csv
import json

import pytest

from ahl_train.benchmark.table import (
    MARKERS,
    UNKNOWN,
    Column,
    Figure,
    Row,
    load_paper,
    paper_figure,
    tabulate,
    write_tables,
)
from ahl_train.errors import RunError


def line(auroc, seed=0, setting="general", seen_class=None, shots=10, system="ahl-dra", **other):
    return {
        "system": system, "setting": setting, "seen_class": seen_class, "shots": shots, "seed": seed, "auroc": auroc,
        "seconds": 1.0, "data": "elpv", "dataset": "elpv", "classes": 2, "schedule": "short", "epochs": 12,
        "epoch": "last", "pixel": False, "backbone": "b", "backbone_digest": "d", **other,
    }  # fmt: skip


def write(folder, lines):
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_into_a_page(tmp_path):
    write(tmp_path, [line(0.86, 0)])
    page = tmp_path / "page.md"
    page.write_text(f"head\n{MARKERS[0]}\n{MARKERS[1]}\ntail\n")
    assert write_tables(tmp_path, page)[-1] == page
    untitled = (tmp_path / "table.md").read_text().removeprefix("# Benchmark\n\n")
    assert page.read_text() == f"head\n{MARKERS[0]}\n{untitled}{MARKERS[1]}\ntail\n"


def test_mean_spread_and_difference(tmp_path):
    write(tmp_path, [line(0.86, 0), line(0.90, 1), line(0.93, 0, system="ahl-density")])
    assert [file.name for file in write_tables(tmp_path)] == ["table.md", "table.html", "table.csv"]
    markdown = (tmp_path / "table.md").read_text()
    assert "| elpv | general |  | 0.880 ± 0.020<br>0.850 ± 0.004<br>+0.030 | 0.930 ± 0.000 (n = 1)" in markdown
    assert "| dataset | setting | seen class | AHL(DRA) | AHL(Density) |" in markdown
    dra, plus = csv.DictReader((tmp_path / "table.csv").open())
    assert [float(dra[k]) for k in ("mean", "std", "paper_mean", "paper_std", "difference")] == pytest.approx(
        [0.88, 0.02, 0.85, 0.004, 0.03]
    )
    assert (plus["seeds"], plus["paper_mean"], plus["difference"]) == ("1", UNKNOWN, UNKNOWN)
    page = (tmp_path / "table.html").read_text()
    assert "<b>0.880 ± 0.020</b><br>0.850 ± 0.004<br>+0.030" in page
    assert {f.name for f in tmp_path.iterdir()} == {"results.jsonl", "table.md", "table.html", "table.csv"}


def test_the_best_epoch_has_a_table_of_its_own(tmp_path):
    best = {"epoch": "best", "shots": 10}
    write(tmp_path, [line(0.86, 0, auroc_best=0.88, **best), line(0.90, 1, auroc_best=0.96, **best)])
    write_tables(tmp_path)
    markdown = (tmp_path / "table.md").read_text()
    last, chosen = markdown.split("### 10 shots, best epoch, chosen on the test images")
    assert "| elpv | general |  | 0.880 ± 0.020<br>0.850 ± 0.004<br>+0.030 |" in last
    assert "| elpv | general |  | 0.920 ± 0.040<br>0.850 ± 0.004<br>+0.070 |" in chosen
    assert "It is chosen on the test images" in last
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    assert [row[k] for k in ("mean", "best_on_test_mean", "best_on_test_std")] == ["0.88", "0.92", "0.04"]
    page = (tmp_path / "table.html").read_text()
    assert (
        page.index("0.880 ± 0.020") < page.index("Best epoch, chosen on the test images") < page.index("0.920 ± 0.040")
    )


def test_figures_of_pixels_have_tables_of_their_own(tmp_path):
    masked = {"pixel": True, "pixel_auroc": 0.97, "pixel_aupro": 0.91}
    write(tmp_path, [line(0.86, **masked), line(0.5, data="/d", dataset="no masks", pixel=True)])
    write_tables(tmp_path)
    _, of_pixels, of_regions = (tmp_path / "table.md").read_text().split("### 10 shots, A")
    assert of_pixels.startswith("UROC of the pixels")
    assert of_regions.startswith("UPRO of the pixels, up to a false-positive rate of 0.3")
    assert "| elpv | general |  | 0.970 ± 0.000 |" in of_pixels  # the paper has none
    assert "| elpv | general |  | 0.910 ± 0.000 |" in of_regions
    assert "| no masks | general |  | – |" in of_pixels
    without, of_elpv = csv.DictReader((tmp_path / "table.csv").open())
    assert (of_elpv["pixel_auroc_mean"], of_elpv["pixel_aupro_mean"]) == ("0.97", "0.91")
    assert (without["pixel_auroc_mean"], without["pixel_aupro_std"]) == (UNKNOWN, UNKNOWN)


def test_without_it_no_word_of_the_best_epoch(tmp_path):
    write(tmp_path, [line(0.86)])
    write_tables(tmp_path)
    assert not any("best" in (tmp_path / f"table.{kind}").read_text().lower() for kind in ("md", "html", "csv"))


def test_rivals_come_last_and_are_explained(tmp_path):
    write(
        tmp_path,
        [line(0.9, system="padim"), line(0.8, system="patchcore"), line(0.7), line(0.95, system="ahl-density")],
    )
    write_tables(tmp_path)
    markdown = (tmp_path / "table.md").read_text()
    assert "| dataset | setting | seen class | AHL(DRA) | AHL(Density) | PatchCore | PaDiM |" in markdown
    assert "0.800 ± 0.000<br>–<br>– | 0.900 ± 0.000<br>–<br>– |" in markdown
    said = "PatchCore (a coreset of 10% of the patches, 2,000 at most) and PaDiM (100 channels): anomalib's"
    assert said in markdown
    assert said in (tmp_path / "table.html").read_text().replace("&#x27;", "'")
    write(tmp_path, [line(0.7)])
    write_tables(tmp_path)
    assert "anomalib" not in (tmp_path / "table.md").read_text()


def test_the_hard_mean_is_over_the_classes_of_whole_seeds():
    lines = [
        line(0.70, 0, "hard", "mono"), line(0.80, 0, "hard", "poly"),
        line(0.72, 1, "hard", "mono"), line(0.86, 1, "hard", "poly"),
        line(0.10, 2, "hard", "mono"),
    ]  # fmt: skip
    table = tabulate(lines)
    assert [row.seen_class for row in table.rows] == ["mono", "poly", "mean"]
    mean = table.entries[table.rows[2], Column(10, "ahl-dra")]
    assert mean.ours == pytest.approx((0.77, 0.02))
    assert mean.seeds == 2
    assert mean.paper == (0.788, 0.003)
    assert mean.difference == pytest.approx(-0.018)


def test_two_datasets_keep_their_own_classes():
    lines = [line(0.7, 0, "hard", c) for c in ("mono", "poly")]
    lines += [line(0.9, 0, "hard", c, data="/cells", dataset="cells") for c in ("crack", "dirt")]
    table = tabulate(lines)
    means = {row.dataset: table.entries[row, Column(10, "ahl-dra")] for row in table.rows if row.seen_class == "mean"}
    assert means["elpv"].paper == (0.788, 0.003)
    assert means["cells"].paper is None
    assert means["cells"].ours.mean == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (Row("elpv", "elpv", "general", ""), Column(10, "ahl-dra"), (0.850, 0.004)),
        (Row("elpv", "elpv", "general", ""), Column(1, "devnet"), (0.810, 0.024)),
        (Row("elpv", "elpv", "hard", "poly"), Column(10, "ahl-devnet"), (0.842, 0.003)),
        (Row("elpv", "elpv", "general", ""), Column(5, "ahl-dra"), None),
        (Row("elpv", "elpv", "general", ""), Column(10, "ahl-density"), None),
        (Row("mvtec:x/carpet", "mvtec/carpet", "general", ""), Column(1, "dra"), (0.873, 0.035)),
        (Row("mvtec:x/carpet", "mvtec/carpet", "hard", "metal_contamination"), Column(1, "dra"), (0.877, 0.013)),
        (Row("mvtec:x/metal_nut", "mvtec/metal_nut", "hard", "scratch"), Column(1, "devnet"), None),
        (Row("mvtec:x/metal_nut", "mvtec/metal_nut", "hard", "scratch"), Column(10, "devnet"), (0.998, 0.005)),
        (Row("aitex:x", "aitex", "hard", "weft_crack"), Column(10, "ahl-dra"), (0.713, 0.003)),
        (Row("hyperkvasir:x", "hyperkvasir", "hard", "barretts-short-segment"), Column(10, "dra"), (0.829, 0.006)),
        (Row("/mine/elpv", "elpv", "general", ""), Column(10, "ahl-dra"), None),
    ],
)
def test_figures_of_the_paper(row, column, expected):
    assert paper_figure(load_paper(), row, column) == (Figure(*expected) if expected else None)


def test_the_paper_has_a_row_for_each_set():
    paper = load_paper()
    assert len(paper["general"]) == 24
    assert set(paper["hard"]) == {"Carpet", "Metal_nut", "AITEX", "ELPV", "Mastcam", "Hyper-Kvasir"}
    assert paper["general"]["ELPV"]["10"]["AHL(DRA)"] == [0.850, 0.004]


def test_a_cut_last_line_is_left_out(tmp_path):
    write(tmp_path, [line(0.86)])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"system": "dra"')
    write_tables(tmp_path)
    assert "| dataset | setting | seen class | AHL(DRA) |\n" in (tmp_path / "table.md").read_text()


def test_names_from_files_are_escaped(tmp_path):
    write(tmp_path, [line(0.8, 0, data="/d", dataset="<a|b>")])
    write_tables(tmp_path)
    assert "&lt;a|b&gt;" in (tmp_path / "table.html").read_text()
    assert r"<a\|b>" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "make it with"), ("", "no results"), ("[]\n", "line 1 is not a result")]
)
def test_no_results(tmp_path, content, said):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(RunError, match=said):
        write_tables(tmp_path)
