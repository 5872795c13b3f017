"""The line's settings: a file, the environment, and faults that are named."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahl_runtime.core.errors import ConfigError
from ahl_runtime.line.sinks.kinds import SINKS
from ahl_runtime.line.sources.folder import FolderSource
from ahl_runtime.line.sources.kinds import SOURCES
from ahl_runtime.line.sources.push import PushSource
from ahl_runtime.service.config import ServiceConfig, load

GOOD = """
[model]
bundle = "cells.ahl"
[[source]]
name = "left"
kind = "folder"
path = "in"
roi = { x = 1, y = 2, width = 30, height = 40 }
[[sink]]
name = "file"
kind = "jsonl"
path = "out.jsonl"
only = ["reject", "fault"]
[http]
port = 0
"""

MODELS = [registry[kind].settings for registry in (SOURCES, SINKS) for kind in registry.built_in]
KEYS = st.text(max_size=6) | st.sampled_from(sorted({key for model in MODELS for key in model.model_fields}))


def written(folder: Path, text: str) -> Path:
    path = folder / "line.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    (left, push) = config.sources
    assert isinstance(left, FolderSource) and left.policy == "block" and left.roi and left.roi.height == 40
    assert isinstance(push, PushSource) and push.name == "default"
    assert config.sink[0].only == ("reject", "fault") and config.store.images == Path("line.sqlite.images")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AHL_HTTP__PORT", "8123")
    monkeypatch.setenv("AHL_STORE__KEEP_PASSES", "0.5")
    monkeypatch.setenv("AHL_TOKEN", "not a setting of the line: the server reads it")
    monkeypatch.setenv("AHL_LOG__LEVEL", "error")
    config = load(written(tmp_path, GOOD), {"http": {"host": "::1"}, "log": {"level": "debug"}})
    assert config.log.level == "debug"  # flags win over both
    assert (config.http.port, config.http.host, config.store.keep_passes) == (8123, "::1", 0.5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('bundel = "x"', "sink[1].bundel: no such key"),
        ("[htpp]\nport = 1", "htpp: no such key; did you mean http?"),
        ("[http]\nprot = 1", "http.prot: no such key; did you mean port?"),
        ('[[source]]\nname = "a"\nkind = "folder"\npaht = "x"', "source[2].paht: no such key; did you mean path?"),
        ('[[source]]\nname = "a"\nkind = "folder"\npaht = "x"', "source[2].path: missing"),
        ('[[source]]\nname = "a"\nkind = "foldr"', "source[2]: no kind 'foldr'; known: 'folder', 'video'"),
        ('[[source]]\nname = "left"\nkind = "push"', "two [[source]] have the name 'left'"),
        (
            '[[source]]\nname = "a"\nkind = "push"\nroi = { x = 1, y = 1, width = 1, heigth = 1 }',
            "source[2].roi.heigth: no such key; did you mean height?",
        ),
        ('[[source]]\nname = "a"\nkind = "folder"\npath = "x"\ndone = "move"', "done = 'move' and move_to belong"),
        ("[store]\nkeep_passes = 2", "store.keep_passes: Input should be less than or equal to 1"),
        ("x = ", "not TOML"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, line: str, said: str) -> None:
    text = GOOD.replace("[http]\nport = 0\n", "") + line
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    assert said in str(caught.value)


def test_every_fault_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "[store]\npaht = 1\n[log]\nlevel = 'loud'"))
    assert all(word in str(caught.value) for word in ("store.paht", "log.level", "model: missing"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def read_or_refused(path: Path | None, given_: dict[str, Any] | None = None) -> None:
    try:
        assert isinstance(load(path, given_), ServiceConfig)
    except ConfigError as error:
        assert str(error)


@given(st.dictionaries(st.sampled_from(sorted(ServiceConfig.model_fields)) | KEYS, values))
def test_any_settings_are_read_or_refused(settings_: dict[str, Any]) -> None:
    read_or_refused(None, settings_)


@given(st.data())
def test_any_change_is_read_or_refused(data: st.DataObject) -> None:
    """One value, anywhere in a file that is right, is another."""
    place: Any = (whole := tomllib.loads(GOOD))
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(values)
    read_or_refused(None, whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text().map(lambda text: (GOOD + text).encode()))
def test_any_file_is_read_or_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "line.toml").write_bytes(body)
    read_or_refused(tmp_path / "line.toml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "line.toml")


def test_every_key_is_in_the_reference() -> None:
    """docs/reference/line-toml.md names each key of each section and kind."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "line-toml.md").read_text()
    parts = {name: field.annotation for name, field in ServiceConfig.model_fields.items()}
    sections = [parts["model"], parts["store"], parts["pipeline"], parts["log"]]
    keys = {key for model in [*sections, *MODELS] for key in model.model_fields}
    assert not {key for key in keys if f"`{key}`" not in page}
