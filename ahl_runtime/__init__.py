"""The runtime of the device: a bundle and frames in, decisions out. Needs numpy, Pillow and one engine, no torch.

    import ahl_runtime

    detector = ahl_runtime.load("cells.ahl")
    scored = detector.score("frame.png")  # or uint8 [H, W, 3], RGB
    print(scored.verdict, scored.score, scored.p_value)

Every error is a `RuntimeFault`.
"""

from typing import TYPE_CHECKING

from ahl_runtime.core import lazy

if TYPE_CHECKING:
    from ahl_runtime.bundle.bundle import Bundle, open_bundle
    from ahl_runtime.core.errors import BundleError, EngineError, ImageError, RuntimeFault, SideFileError, SigningError
    from ahl_runtime.core.types import Decision, Frame
    from ahl_runtime.score.scoring import Scored, Scorer, load

    __version__: str

__all__ = [
    "Bundle",
    "BundleError",
    "Decision",
    "EngineError",
    "Frame",
    "ImageError",
    "RuntimeFault",
    "Scored",
    "Scorer",
    "SideFileError",
    "SigningError",
    "load",
    "open_bundle",
]

_ERRORS = ("BundleError", "EngineError", "ImageError", "RuntimeFault", "SideFileError", "SigningError")

__getattr__, __dir__ = lazy.door(
    __name__,
    {
        **dict.fromkeys(_ERRORS, "ahl_runtime.core.errors"),
        **dict.fromkeys(("Decision", "Frame"), "ahl_runtime.core.types"),
        **dict.fromkeys(("Bundle", "open_bundle"), "ahl_runtime.bundle.bundle"),
        **dict.fromkeys(("Scored", "Scorer", "load"), "ahl_runtime.score.scoring"),
    },
)
