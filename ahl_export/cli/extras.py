"""The extras that commands need, checked before any work."""

from importlib.util import find_spec

_TRAIN = ("torch", "torchvision", "timm", "sklearn", "rich")
_EXPORT = (*_TRAIN, "onnx", "onnxscript", "matplotlib", "jinja2")
_PACKAGES = {
    "train": _TRAIN,
    "export": _EXPORT,
    "demo": (*_EXPORT, "elpv_dataset"),
    "openvino": ("openvino",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "signing": ("cryptography",),
}


class MissingExtra(Exception):  # noqa: N818 (named for what it is)
    """A command whose extra is not installed."""


def require(command: str, *extras: str) -> None:
    """Check that the packages of the extras are installed. MissingExtra, with the command that installs them."""
    missing = ",".join(extra for extra in extras if any(find_spec(package) is None for package in _PACKAGES[extra]))
    if missing:
        raise MissingExtra(f"ahl {command} needs the extra [{missing}]: pip install 'ahl[{missing}]'")
