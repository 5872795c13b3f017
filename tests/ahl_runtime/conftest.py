"""A real, tiny bundle: an ONNX graph that scores darkness, real solar cells, and a real calibration."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import elpv_dataset
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import calibration
from ahl_runtime.bundle.bundle import write_bundle
from ahl_runtime.core.decode import decode
from ahl_runtime.engines.ort import OrtEngine
from ahl_runtime.line.config import LineConfig
from ahl_runtime.line.line import Line
from ahl_runtime.service.config import load

IMAGES = Path(elpv_dataset.__path__[0]) / "data" / "images"
SIDE = 16


def darkness_graph(side: int = SIDE) -> bytes:
    """uint8 [N, H, W, 3] to score [N] (mean darkness), anomaly_map [N, side, side], head_scores [N, 2]."""
    constants = {
        "channels": np.array([3]),
        "pixels": np.array([1, 2]),
        "head": np.array([1]),
        "white": np.array(255, np.float32),
        "scales": np.array([], np.float32),
        "sizes_tail": np.array([side, side]),
    }
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["image"], ["raw"], to=TensorProto.FLOAT),
            node("ReduceMean", ["raw", "channels"], ["grey"], keepdims=0),
            node("Div", ["grey", "white"], ["light"]),
            node("Unsqueeze", ["light", "head"], ["planes"]),
            node("Shape", ["planes"], ["sizes_head"], start=0, end=2),
            node("Concat", ["sizes_head", "sizes_tail"], ["sizes"], axis=0),
            node(
                "Resize",
                ["planes", "", "scales", "sizes"],
                ["small"],
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
            node("Squeeze", ["small", "head"], ["small_light"]),
            node("Sub", ["one", "small_light"], ["anomaly_map"]),
            node("ReduceMean", ["anomaly_map", "pixels"], ["score"], keepdims=0),
            node("ReduceMax", ["anomaly_map", "pixels"], ["darkest"], keepdims=0),
            node("Unsqueeze", ["score", "head"], ["a"]),
            node("Unsqueeze", ["darkest", "head"], ["b"]),
            node("Concat", ["a", "b"], ["head_scores"], axis=1),
        ],
        "darkness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", side, side]),
            helper.make_tensor_value_info("head_scores", TensorProto.FLOAT, ["N", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in {**constants, "one": np.array(1, np.float32)}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def model() -> bytes:
    return darkness_graph()


@pytest.fixture(scope="session")
def cells() -> list[Path]:
    return sorted(IMAGES.glob("cell*.png"))[:40]


def as_png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def parts(model: bytes, cells: list[Path]) -> tuple[dict[str, Any], dict[str, bytes | Path]]:
    """The manifest's fields and the members of a bundle calibrated on real cells."""
    engine = OrtEngine(model)
    scores = [float(engine.infer(decode(cell)[np.newaxis]).score[0]) for cell in cells]
    fitted = calibration.fit(scores, alpha=0.1, confidence=0.9)
    stored = io.BytesIO()
    fitted.save(stored)
    frames = {f"reference/{i}.png": as_png(decode(cells[i])[:64, :64]) for i in range(2)}
    fields = {
        "name": "cells",
        "graph": {
            "opset": 18,
            "inputs": ["image"],
            "outputs": ["score", "anomaly_map", "head_scores"],
            "heads": ["mean", "darkest"],
        },
        "artefacts": [
            {
                "engine": "onnxruntime",
                "files": ["model.onnx"],
                "precision": "float32",
                "tolerance": 1e-4,
                "decision": {
                    "alpha": fitted.alpha,
                    "confidence": fitted.confidence,
                    "threshold": fitted.threshold,
                    "unsure_threshold": fitted.unsure_threshold,
                    "promise": fitted.promise.sentence,
                },
                "calibration": {"file": "calibration/onnxruntime.npz", "n": fitted.n},
                "map_range": [0.2, 0.8],
                "reference": [
                    {"file": name, "score": float(engine.infer(decode(png)[np.newaxis]).score[0])}
                    for name, png in frames.items()
                ],
                "parity": None,
                "extras": {},
            }
        ],
        "provenance": {"system": "darkness", "seed": 0},
    }
    return fields, {"model.onnx": model, "calibration/onnxruntime.npz": stored.getvalue(), **frames}


@pytest.fixture
def make_bundle(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle and returns its path; `fields`, `first` (of the first artefact) and `members` replace its own."""

    def make(
        name: str = "cells.ahl",
        fields: dict[str, Any] | None = None,
        members: dict[str, Any] | None = None,
        first: dict[str, Any] | None = None,
    ) -> Path:
        path = tmp_path / name
        artefacts = [{**parts[0]["artefacts"][0], **(first or {})}, *parts[0]["artefacts"][1:]]
        write_bundle(path, {**parts[0], "artefacts": artefacts, **(fields or {})}, {**parts[1], **(members or {})})
        return path

    return make


@pytest.fixture(scope="session")
def bundle_path(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "cells.ahl"
    write_bundle(path, *parts)
    return path


@pytest.fixture
def config(bundle_path: Path, tmp_path: Path) -> Callable[..., LineConfig]:
    """Settings with a store in the test's folder; sections replace the defaults."""

    def make(**sections: Any) -> LineConfig:
        model = {"bundle": bundle_path, "threads": 1, **sections.pop("model", {})}
        store = {"path": tmp_path / "line.sqlite", **sections.pop("store", {})}
        return load(None, {"model": model, "store": store, **sections})

    return make


@pytest.fixture
def running(config: Callable[..., LineConfig]) -> Iterator[Callable[..., Line]]:
    """Starts lines."""
    with ExitStack() as stack:
        yield lambda **sections: stack.enter_context(Line(config(**sections)))
