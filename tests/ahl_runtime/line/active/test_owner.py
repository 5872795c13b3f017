"""Changes of the active model that meet: each test holds one of them halfway, and lets the other go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahl_runtime.bundle.device_calibration import Change, SideFile, SideFiles
from ahl_runtime.core.decode import decode
from ahl_runtime.core.errors import BundleError, EngineError
from ahl_runtime.line.active.loaded import LoadedBundle
from ahl_runtime.line.active.owner import ModelOwner
from ahl_runtime.line.line import Line
from ahl_runtime.score.recalibrate import Proposal
from tests.ahl_runtime.support import until

WHO = Change("ann", "a new lamp", {})
GREY = np.full((64, 64, 3), 128, np.uint8)
_SECONDS = "ahl_runtime.line.active.owner._SHADOW_SECONDS"


@pytest.fixture
def line(running: Callable[..., Line], make_bundle: Callable[..., Path]) -> Line:
    return running(model={"bundle": make_bundle("a.ahl")})


@pytest.fixture
def proposal(line: Line, cells: list[Path]) -> Proposal:
    for cell in cells:
        line.submit(decode(cell))
    return line.propose("default", 40)


class Gate:
    """Holds whoever comes through it. `reached`: somebody waits here."""

    def __init__(self) -> None:
        self.reached, self._open = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[threading.Thread]:
    """Runs beside the block, and is over after it; what it raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(20)
    assert not thread.is_alive()
    for error in errors:
        raise error


def held_after(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, gate: Gate) -> None:
    """The first caller of a method is held after it."""
    real, first = getattr(owner, method), threading.Lock()

    def held(self: Any, *arguments: Any) -> Any:
        found = real(self, *arguments)
        if first.acquire(blocking=False):
            gate.wait()
        return found

    monkeypatch.setattr(owner, method, held)


def break_engine(bundle: LoadedBundle) -> None:
    """From now on it fails, as one whose device is lost."""

    def failing(images: np.ndarray, **_: bool) -> Any:
        raise EngineError("the device is lost")

    bundle.infer = failing  # type: ignore[method-assign]


def fail_once(line: Line) -> None:
    """The active bundle's engine fails on a frame; wait until that is accounted for."""
    failing = line.model
    break_engine(failing)
    with pytest.raises(EngineError):
        line.submit(GREY)
    until(lambda: line.model is not failing)


def test_a_calibration_adopted_while_the_engine_reloads_decides(
    line: Line, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, failed = Gate(), line.model
    held_after(monkeypatch, ModelOwner, "_load", gate)
    with in_thread(lambda: line._owner.reload(failed)):
        assert gate.reached.wait(20)
        name = line.adopt("default", proposal, WHO)
        gate.open()
    assert line.model is not failed
    assert line.rule("default").name == name == line.submit(GREY).decision.calibration


def test_an_engine_reloaded_while_a_calibration_is_adopted_stays(
    line: Line, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its side file is written, and it is not active yet: a reload that ends now must not be undone by it."""
    gate, failed = Gate(), line.model
    held_after(monkeypatch, SideFiles, "add", gate)
    with in_thread(lambda: line.adopt("default", proposal, WHO)):
        assert gate.reached.wait(20)
        with in_thread(lambda: line._owner.reload(failed)) as reloading:
            reloading.join(1.0)
            gate.open()
    assert line.model is not failed
    assert line.rule("default").name == "default.onnxruntime.0001"


def test_two_calibrations_at_once_are_both_written_and_the_last_decides(
    line: Line, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, added = Gate(), []
    held_after(monkeypatch, SideFiles, "add", gate)
    with in_thread(lambda: added.append(line.adopt("default", proposal, WHO))):
        assert gate.reached.wait(20)
        with in_thread(lambda: line.undo("default", WHO)) as undoing:
            undoing.join(1.0)
            gate.open()
    assert added == ["default.onnxruntime.0001"]
    assert line.rule("default").name == "bundle"  # undone last


def test_a_bundle_that_failed_never_comes_back(
    line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B is on probation while C runs in the shadow, and fails there: C's own failure must not bring B back."""
    monkeypatch.setattr(_SECONDS, 0.1)
    line.deploy(make_bundle("b.ahl", {"name": "newer"}))
    monkeypatch.setattr(_SECONDS, 20.0)
    newest = make_bundle("c.ahl", {"name": "newest"})
    with in_thread(lambda: line.deploy(newest)):
        until(lambda: line._owner._shadow_run)
        fail_once(line)
        assert line.model.name == "a"
        for _ in range(60):
            line.submit(GREY)
    assert line.model.name == "c"
    fail_once(line)
    assert line.model.name == "a"


def test_a_bundle_on_probation_is_not_what_comes_back(
    line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_SECONDS, 0.1)
    for name in ("b", "c"):
        line.deploy(make_bundle(f"{name}.ahl", {"name": name}))
    fail_once(line)
    assert line.model.name == "a" and "a is active again: c was rolled back" in "".join(line.state().faults)


def test_a_roll_back_and_a_deployment_that_meet_leave_one_model(
    running: Callable[..., Line], line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B is being rolled back, and that is being stored, when C is activated: what is stored is what decides."""
    monkeypatch.setattr(_SECONDS, 0.1)
    line.deploy(make_bundle("b.ahl", {"name": "newer"}))
    newest, gate = make_bundle("c.ahl", {"name": "newest"}), Gate()
    held_before_storing(monkeypatch, gate)
    with in_thread(lambda: fail_once(line)):
        assert gate.reached.wait(20)
        with in_thread(lambda: line.deploy(newest)) as deploying:
            deploying.join(1.5)
            gate.open()
    assert line.model.name == "c"
    line.stop()
    assert running(model={"bundle": line.config.model.bundle}).model.name == "c"


def held_before_storing(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """The next change is held before it is stored."""
    real, first = ModelOwner._store, threading.Lock()

    def held(self: ModelOwner, path: Path) -> None:
        if first.acquire(blocking=False):
            gate.wait()
        real(self, path)

    monkeypatch.setattr(ModelOwner, "_store", held)


def test_each_deployment_has_a_shadow_run_of_its_own(
    line: Line, make_bundle: Callable[..., Path], parts: Any, cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C is asked for while B runs in the shadow without frames: it waits, then sees frames of its own."""
    monkeypatch.setattr(_SECONDS, 1.0)
    decision = {**parts[0]["artefacts"][0]["decision"], "threshold": 0.1, "unsure_threshold": 0.1}
    good, strict = make_bundle("b.ahl", {"name": "b"}), make_bundle("c.ahl", first={"decision": decision})
    refused: list[Exception] = []

    def deploy_strict() -> None:
        try:
            line.deploy(strict)
        except BundleError as error:
            refused.append(error)

    with in_thread(lambda: line.deploy(good)) as first:
        until(lambda: line._owner._shadow_run)
        with in_thread(deploy_strict) as second:
            first.join(10)
            monkeypatch.setattr(_SECONDS, 20.0)
            while second.is_alive():
                line.submit(decode(cells[0]))
    assert "frames that pass now" in str(refused[0]) and line.model.name == "b"


def test_side_files_are_read_when_a_bundle_becomes_active(line: Line, proposal: Proposal) -> None:
    """A calibration that another process wrote decides after the next change."""
    written: SideFile = line.model.side_files.add(line.model.artefact, "default", proposal.new, WHO)
    assert line.rule("default").name == "bundle"
    assert line._owner.reload(line.model)
    assert line.rule("default").name == written.name


def test_a_calibration_for_another_bundle_is_refused(
    line: Line, proposal: Proposal, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_SECONDS, 0.1)
    line.deploy(make_bundle("b.ahl", {"name": "newer"}))
    with pytest.raises(BundleError, match="deployed since the preview: preview again"):
        line.adopt("default", proposal, WHO)


def test_a_source_keeps_its_scores_when_another_is_calibrated(
    running: Callable[..., Line], make_bundle: Callable[..., Path], cells: list[Path]
) -> None:
    source = [{"name": name, "kind": "push"} for name in ("left", "right")]
    line = running(model={"bundle": make_bundle("a.ahl")}, source=source)
    for name in ("left", "right"):
        for cell in cells:
            line.submit(decode(cell), name)
    line.adopt("left", line.propose("left", 40), WHO)
    assert line.propose("right", 40).new.n == 40
    with pytest.raises(Exception, match="wait for more"):
        line.propose("left", 40)


def test_a_reload_that_ends_after_a_deployment_changes_nothing(
    line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = make_bundle("b.ahl", {"name": "newer"})
    gate, failed, reloaded = Gate(), line.model, []
    monkeypatch.setattr(_SECONDS, 0.1)
    held_after(monkeypatch, ModelOwner, "_load", gate)
    with in_thread(lambda: reloaded.append(line._owner.reload(failed))):
        assert gate.reached.wait(20)
        line.deploy(newer)
        gate.open()
    assert reloaded == [False] and line.model.name == "b"


def test_only_the_bundle_on_probation_is_judged(
    line: Line, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that the bundle before was still scoring fails after the deployment: that is not the new one's fault."""
    monkeypatch.setattr(_SECONDS, 0.1)
    before = line.model
    line.deploy(make_bundle("b.ahl", {"name": "newer"}))
    line._owner.observe(before, [], None)
    assert line.model.name == "b"
    line._owner.observe(line.model, [], None)
    assert line.model is before and line._owner._probation is None  # and the failed one can leave memory
