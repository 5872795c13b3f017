"""Real servers on loopback ports, around a line of one source: a real bundle, engine, store and drift monitor."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.registry import Collector
from starlette.types import ASGIApp

from ahl_runtime.bundle.bundle import open_bundle
from ahl_runtime.bundle.device_calibration import Change, SideFiles
from ahl_runtime.core.errors import BundleError, NoSource, SourceError
from ahl_runtime.core.types import Decision, Frame, Outputs
from ahl_runtime.http.app import App, build
from ahl_runtime.http.server import Server
from ahl_runtime.http.settings import Settings
from ahl_runtime.line.monitor.latency import StageLatencies
from ahl_runtime.line.monitor.state import DriftState, Latest, ModelState, Point, SourceState, State
from ahl_runtime.line.store.store import Store
from ahl_runtime.score.decision import DecisionRule
from ahl_runtime.score.recalibrate import Proposal, decoded, propose
from ahl_runtime.score.scoring import Scorer
from ahl_runtime.score.selfcheck import check
from calibration import Drift


class StoredDecision:
    def __init__(self, id: str, decision: Decision) -> None:
        self.id, self.decision = id, decision


class OneSource:
    """The least line: it scores, stores, monitors and counts, all with the runtime's own parts."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.path = folder / bundle.name
        self.path.write_bytes(bundle.read_bytes())
        self.load()
        self.folder, self.store_path = folder, folder / "line.sqlite"
        self.drift = Drift(self.scorer.rule.calibration)
        self.recent: list[tuple[str, Decision]] = []
        self.image: np.ndarray | None = None
        self.lock = threading.Lock()
        self.source, self.faults = ("live", "frames come"), list[str]()
        Store(self.store_path, create=True).__exit__(None, None, None)

    def load(self) -> None:
        self.bundle = open_bundle(self.path)
        self.files = SideFiles(self.bundle)
        self.scorer = Scorer(self.bundle, threads=1, source="default")
        self.name, self.digest, self.engine = self.path.stem, self.scorer.rule.bundle, self.scorer.engine.name
        self.map_range = self.scorer.map_range

    @property
    def model(self) -> Any:
        return self

    def infer(self, images: np.ndarray) -> Outputs:
        return self.scorer.engine.infer(images)

    def submit(self, image: np.ndarray, source: str | None, frame: str, *, file: bytes = b"") -> StoredDecision:
        decision = self.scorer.score(Frame(image, id=frame, source=source or "default"))
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        with self.lock:
            path = self.folder / f"{len(self.recent)}.png"
            path.write_bytes(out.getvalue())
            with Store(self.store_path) as store:
                id = store.record(decision, path, hashlib.sha256(out.getvalue()).hexdigest(), self.engine)
            self.drift.observe(decision.score)
            self.recent.append((id, decision))
            self.image = image
        return StoredDecision(id, decision)

    def trigger(self, source: str) -> None:
        if source != "default":
            raise NoSource(f"no source {source!r}")
        raise SourceError("source default has no software trigger")

    def state(self) -> State:
        with self.lock:
            points = [Point(id=i, score=d.score, verdict=d.verdict) for i, d in self.recent]
            report = self.drift.report()
        count = {v: sum(p.verdict == v for p in points) for v in ("pass", "unsure", "reject")}
        rule = self.scorer.rule
        latest = None
        if points:
            latest = Latest(
                **points[-1].model_dump(),
                threshold=rule.threshold,
                unsure_threshold=rule.unsure_threshold,
                p_value=self.recent[-1][1].p_value,
                captured=None,
            )
        source = SourceState(
            name="default",
            state=self.source[0],
            said=self.source[1],
            frames=len(points),
            passed=count["pass"],
            rejected=count["reject"],
            unsure=count["unsure"],
            dropped=0,
            queue=0,
            drift=DriftState(state="alarm" if report.alarm else "calm", said=report.sentence),
            latest=latest,
            recent=points[-60:],
        )
        model = ModelState(name=self.name, digest=self.digest, engine=self.engine)
        return State(model=model, rejects=count["reject"], faults=self.faults, sources=[source])

    def latencies(self) -> Collector:
        stages = StageLatencies()
        for _ in self.recent:
            stages.add("score", 0.001)
        return stages.histogram

    def check_ready(self) -> None:
        pass

    def picture(self, source: str) -> tuple[np.ndarray, np.ndarray] | None:
        if source != "default" or self.image is None:
            return None
        return self.image, self.recent[-1][1].anomaly_map

    def keep(self, id: str) -> bool:
        return False  # every image is kept

    def rule(self, source: str) -> DecisionRule:
        return self.scorer.rule

    def propose(self, source: str, frames: int, **options: Any) -> Proposal:
        return propose(self.scorer, decoded(sorted(self.folder.glob("[0-9]*.png"))[-frames:]), **options)

    def adopt(self, source: str, proposal: Proposal, change: Change) -> str:
        name = self.files.add(self.scorer.artefact, source, proposal.new, change).name
        self.load()
        return name

    def undo(self, source: str, change: Change) -> str:
        name = self.files.undo(self.scorer.artefact, source, change)
        self.load()
        return name

    def reset_drift(self, source: str) -> None:
        self.drift.reset()

    def deploy(self, path: Path) -> None:
        if not check(open_bundle(path), threads=1).passed:
            raise BundleError(f"{path}: its reference frames score otherwise here")
        self.path = path
        self.load()


@pytest.fixture
def line(bundle_path: Path, tmp_path: Path) -> OneSource:
    return OneSource(bundle_path, tmp_path)


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Starts servers; they stop with the test."""
    with ExitStack() as stack:

        def serve(app: ASGIApp | App, settings: Settings | None = None) -> Server:
            asgi, stop = (app.asgi, app.stop) if isinstance(app, App) else (app, lambda: None)
            return stack.enter_context(Server(asgi, settings or Settings(port=0), stop))

        yield serve


@pytest.fixture
def url(line: OneSource, served: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> str:
    """A server around the line, as it is on loopback: open."""
    monkeypatch.delenv("AHL_TOKEN", raising=False)
    return served(build(line, Settings(rate=1e6))).url
