"""A model repository for Triton Inference Server from a bundle's float32 graph: config, version, thresholds."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ahl_export.errors import ExportError
from ahl_export.graph.onnx_graph import from_bytes
from ahl_runtime.bundle.bundle import Bundle
from ahl_runtime.core.files import write_whole

CONFIG, ABOUT = "config.pbtxt", "bundle.json"
_BATCH = 8
_TYPES = {ir.DataType.UINT8: "TYPE_UINT8", ir.DataType.FLOAT: "TYPE_FP32"}


def check_writable(folder: Path) -> None:
    """Called before minutes of work. ExportError if `folder` cannot be created or written."""
    if folder.exists():
        good = folder.is_dir() and os.access(folder, os.W_OK)
    else:
        good = folder.parent.is_dir() and os.access(folder.parent, os.W_OK)
    if not good:
        raise ExportError(f"{folder} cannot be written: give --triton a folder, in one that exists and is writable")


def write(bundle: Bundle, folder: Path) -> Path:
    """Add the bundle's graph to the repository `folder`, as a new version of the model with the bundle's name.

    Returns the version's folder. It holds model.onnx and bundle.json (thresholds and the bundle's digest), which Triton
    ignores. An existing config.pbtxt stays as its owner tuned it, if its tensors are those of this graph. On
    ExportError nothing is added.
    """
    check_writable(folder)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", bundle.manifest.name)
    data = bundle.read(bundle.manifest.first.files[0])
    tensors = _tensors(from_bytes(data).graph)
    model = folder / name
    config = model / CONFIG
    try:
        if config.exists() and not _squeezed(tensors) <= _squeezed(config.read_text()):
            raise ExportError(f"{config} is of another model: give the bundle another name, or --triton another folder")
        model.mkdir(parents=True, exist_ok=True)
        target = model / str(1 + max((int(d.name) for d in model.iterdir() if d.name.isdecimal()), default=0))
        aside = model / f".{target.name}.{os.getpid()}.part"
        try:
            aside.mkdir()
            write_whole(aside / "model.onnx", [data])
            write_whole(aside / ABOUT, [_about(bundle).encode()])
            if not config.exists():
                write_whole(config, [_config(name, tensors).encode()])
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise ExportError(
            f"{model} cannot be written ({error.strerror or error}): check it and its free space"
        ) from error
    return target


def _about(bundle: Bundle) -> str:
    """The served artefact's entry in the manifest, and the bundle that it came from."""
    fields: dict[str, Any] = {
        "bundle": bundle.digest,
        "created": bundle.manifest.created.isoformat(),
        "heads": bundle.manifest.graph.heads,
        "artefact": bundle.manifest.first.model_dump(mode="json"),
    }
    return json.dumps(fields, indent=2) + "\n"


def _config(name: str, tensors: str) -> str:
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {_BATCH}\n"
        f"{tensors}"
        "# Requests with frames of one size are batched; one waits at most this long for others.\n"
        "dynamic_batching {\n  max_queue_delay_microseconds: 2000\n}\n"
    )


def _tensors(graph: ir.Graph) -> str:
    """The inputs and outputs, without the batch dimension, which Triton adds."""
    return "".join(
        f"{kind} [\n" + ",\n".join(_tensor(v) for v in values) + "\n]\n"
        for kind, values in (("input", graph.inputs), ("output", graph.outputs))
    )


def _tensor(value: ir.Value) -> str:
    if value.shape is None or value.dtype is None:
        raise ExportError(f"the graph does not say the shape and type of {value.name}: export the bundle again")
    dims = [d if isinstance(d, int) else -1 for d in value.shape[1:]]
    # One number per frame has only the batch dimension. Triton needs another one in its interface.
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ]\n    reshape { shape: [ ] }"
    return f'  {{\n    name: "{value.name}"\n    data_type: {_TYPES[value.dtype]}\n    {shape}\n  }}'


def _squeezed(text: str) -> set[str]:
    """Each tensor's entry without spaces, to compare configs that were edited by hand."""
    return {re.sub(r"\s+", "", entry) for entry in re.findall(r"\{\s*name:.*?\n  \}", text, re.DOTALL)}
