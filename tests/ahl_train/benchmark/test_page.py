"""Figures are written between their markers, or not at all."""

import pytest

from ahl_train.benchmark.page import write_into
from ahl_train.errors import RunError

MARKERS = ("<!-- figures -->", "<!-- /figures -->")


def test_only_what_is_between_the_markers_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("head\n<!-- figures -->\nold\n<!-- /figures -->\ntail\n")
    assert write_into(page, "new\n", MARKERS) == page
    assert page.read_text() == "head\n<!-- figures -->\nnew\n<!-- /figures -->\ntail\n"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("body", ["head\n", "<!-- figures -->\n", "<!-- /figures -->\n<!-- figures -->\n"])
def test_a_page_without_its_markers_is_refused(tmp_path, body):
    page = tmp_path / "page.md"
    page.write_text(body)
    with pytest.raises(RunError, match="lacks the markers"):
        write_into(page, "new\n", MARKERS)
    assert page.read_text() == body


def test_a_page_that_is_not_there(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        write_into(tmp_path / "none.md", "new\n", MARKERS)
