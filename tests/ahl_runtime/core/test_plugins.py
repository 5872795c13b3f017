"""Registries: built-in names first, plug-ins found by their entry points, and those that fail hurt no other."""

import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.core.plugins import Registry

Install = Callable[[str, Mapping[str, str], str], None]


def registry() -> Registry[int]:
    return Registry(
        "ahl.numbers", {"one": "errno:EPERM"}, "a number", lambda value: isinstance(value, int), ConfigError
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution NAME 1.0 onto the path: its module NAME, and entry points of ahl.numbers."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, points: Mapping[str, str], module: str) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        listed = "\n".join(f"{key} = {value}" for key, value in points.items())
        (info / "entry_points.txt").write_text(f"[ahl.numbers]\n{listed}\n")
        (tmp_path / f"{name}.py").write_text(module)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return make


def test_a_plugin_is_found_behind_what_is_built_in(install: Install) -> None:
    install("addon_more", {"two": "addon_more:TWO"}, "TWO = 2")
    found = registry()
    assert list(found) == ["one", "two"] and found.built_in == ("one",) and found.added == ("two",)
    assert dict(found) == {"one": 1, "two": 2}


def test_nothing_is_imported_before_it_is_asked_for(install: Install) -> None:
    install("addon_lazy", {"two": "addon_lazy:TWO"}, "TWO = 2")
    found = registry()
    assert "two" in found and len(found) == 2 and found["one"] == 1
    assert "addon_lazy" not in sys.modules
    assert found["two"] == 2 and "addon_lazy" in sys.modules


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import no_such_thing", "cannot be imported (ModuleNotFoundError: No module named 'no_such_thing')"),
        ("raise RuntimeError('of two\\nlines')", "cannot be imported (RuntimeError: of two lines)"),
        ("", "cannot be imported (AttributeError: module 'addon_bad' has no attribute 'TWO')"),
        ("TWO = 'two'", "addon_bad:TWO is of type str, expected a number"),
    ],
)
def test_a_plugin_that_fails_is_named_and_the_others_work(install: Install, module: str, said: str) -> None:
    install("addon_bad", {"two": "addon_bad:TWO"}, module)
    found = registry()
    with pytest.raises(ConfigError) as caught:
        found["two"]
    message = str(caught.value)
    assert message.startswith("'two' of the plug-in addon_bad 1.0") and said in message and "\n" not in message
    assert found["one"] == 1 and list(found) == ["one", "two"]


def test_two_plugins_of_one_name_are_both_named(install: Install) -> None:
    install("addon_a", {"two": "addon_a:TWO"}, "TWO = 2")
    install("addon_b", {"two": "addon_b:TWO"}, "TWO = 22")
    with pytest.raises(ConfigError, match=r"addon_[ab] 1\.0 and the plug-in addon_[ab] 1\.0: uninstall one"):
        registry()["two"]


def test_a_built_in_name_stays_built_in(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("addon_thief", {"one": "addon_thief:ONE"}, "ONE = 11")
    with caplog.at_level(logging.WARNING):
        found = registry()
        assert list(found) == ["one"] and found["one"] == 1
    assert "the plug-in addon_thief 1.0 is ignored" in caplog.text


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        registry()["three"]
    assert registry().get("three") is None


def test_a_value_can_be_added_to_this_process_and_taken_back() -> None:
    found = registry()
    found["four"] = 4
    assert found["four"] == 4 and found.added == ("four",)
    del found["four"]
    assert "four" not in found
