"""The Triton repository: its config against Triton's schema, its tensors against the graph, versions side by side."""

import importlib.util
import json
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from google.protobuf import text_format

from ahl_export.backends import triton
from ahl_export.errors import ExportError
from ahl_export.options import ExportOptions
from ahl_export.pipeline import export
from ahl_runtime.bundle.bundle import Bundle
from ahl_train.run import Run

NUMPY = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}


@pytest.fixture(scope="session")
def schema() -> Any:
    """Triton's published ModelConfig, compiled: from its client's package, whose other modules want more packages."""
    found = next(f for f in files("tritonclient") or [] if f.name == "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", found.locate())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run.folder, tmp_path_factory.mktemp("out") / "all 1.ahl", ExportOptions(alpha=0.1))


def _config(schema: Any, version: Path) -> Any:
    return text_format.Parse((version.parent / triton.CONFIG).read_text(), schema.ModelConfig())


@pytest.mark.slow
def test_the_config_is_tritons_and_says_what_the_graph_takes_and_gives(
    schema: Any, bundle: Bundle, tmp_path: Path
) -> None:
    version = triton.write(bundle, tmp_path / "models")
    assert version == tmp_path / "models" / "all_1" / "1"
    config = _config(schema, version)
    assert (config.name, config.backend, config.max_batch_size) == ("all_1", "onnxruntime", 8)
    assert config.HasField("dynamic_batching")
    session = onnxruntime.InferenceSession(version / "model.onnx")
    for listed, graph in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [t.name for t in listed] == [t.name for t in graph]
        for tensor, own in zip(listed, graph, strict=True):
            assert NUMPY[schema.DataType.Name(tensor.data_type)] == own.type
            dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
            assert list(dims) == [d if isinstance(d, int) else -1 for d in own.shape[1:]]
    assert list(config.input[0].dims) == [-1, -1, 3]


@pytest.mark.slow
def test_a_batch_within_the_config_gives_tensors_of_its_shapes(schema: Any, bundle: Bundle, tmp_path: Path) -> None:
    version = triton.write(bundle, tmp_path)
    config = _config(schema, version)
    images = np.zeros((config.max_batch_size, 120, 90, 3), np.uint8)
    given = onnxruntime.InferenceSession(version / "model.onnx").run([t.name for t in config.output], {"image": images})
    for tensor, array in zip(config.output, given, strict=True):
        # Triton adds the batch to the dimensions that it announces, and one where the graph has no other.
        assert array.reshape(len(images), *tensor.dims).size == array.size


@pytest.mark.slow
def test_the_thresholds_go_along(bundle: Bundle, tmp_path: Path) -> None:
    about = json.loads((triton.write(bundle, tmp_path) / triton.ABOUT).read_text())
    assert about["bundle"] == bundle.digest
    assert about["artefact"]["decision"]["threshold"] == bundle.manifest.first.decision.threshold


@pytest.mark.slow
def test_another_export_is_another_version_and_what_was_tuned_stays(bundle: Bundle, tmp_path: Path) -> None:
    first = triton.write(bundle, tmp_path)
    config = first.parent / triton.CONFIG
    config.write_text("instance_group [ { count: 2 } ]\n" + config.read_text())
    tuned = config.read_text()
    second = triton.write(bundle, tmp_path)
    assert (first.name, second.name) == ("1", "2")
    assert config.read_text() == tuned
    assert {p.name for p in first.parent.iterdir()} == {"1", "2", triton.CONFIG}


@pytest.mark.slow
def test_another_models_config_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    config = triton.write(bundle, tmp_path).parent / triton.CONFIG
    config.write_text(config.read_text().replace("-1, -1, 3", "-1, -1, 1"))
    with pytest.raises(ExportError, match="is of another model: give the bundle another name"):
        triton.write(bundle, tmp_path)
    assert {p.name for p in config.parent.iterdir()} == {"1", triton.CONFIG}


@pytest.mark.slow
def test_nothing_half_written_stays(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, chunks: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton, "write_whole", full)
    with pytest.raises(ExportError, match=r"cannot be written \(No space left on device\)"):
        triton.write(bundle, tmp_path)
    assert list((tmp_path / "all_1").iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "missing" / "models"):
        with pytest.raises(ExportError, match="give --triton a folder"):
            triton.check_writable(place)


def test_a_tensor_without_a_shape_is_refused() -> None:
    with pytest.raises(ExportError, match="does not say the shape and type of score: export the bundle again"):
        triton._tensor(ir.val("score", ir.DataType.FLOAT))
