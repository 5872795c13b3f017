"""The picture of a decision: the frame, the heat map over it, and the verdict in colour, shape and words."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ahl_runtime.core.errors import OutputError
from ahl_runtime.core.files import write_whole
from ahl_runtime.core.types import Decision, Verdict

RGB = tuple[int, int, int]

# Verdict colours (band, text on it) that colour-blind people can tell apart, also in a grey print.
COLOURS: dict[Verdict, tuple[RGB, RGB]] = {
    "pass": ((0, 98, 78), (255, 255, 255)),
    "unsure": ((245, 190, 40), (0, 0, 0)),
    "reject": ((186, 28, 28), (255, 255, 255)),
}

# Violet to red to yellow. Each step is lighter, so that the map is also clear in grey.
_ANCHORS = np.array([(40, 8, 80), (110, 24, 110), (176, 44, 84), (226, 88, 44), (250, 158, 30), (252, 246, 160)])
_POSITIONS = np.linspace(0, 1, len(_ANCHORS))
LUT: NDArray[np.uint8] = np.stack(
    [np.interp(np.linspace(0, 1, 256), _POSITIONS, _ANCHORS[:, c]) for c in range(3)], axis=1
).astype(np.uint8)

_CLEAR, _FULL = 0.4, 0.65  # heat at which the colour starts to cover the frame, and at which it covers it most
_OPAQUE = 0.7  # the largest opacity: the frame stays visible


def heat(
    anomaly_map: NDArray[np.float32], map_range: tuple[float, float], height: int, width: int
) -> NDArray[np.float32]:
    """The map as heat, float32 [height, width], bilinear: 0 at the low end of `map_range`, 1 at its high end."""
    low, high = map_range
    grown = Image.fromarray(np.ascontiguousarray(anomaly_map, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    hot: NDArray[np.float32] = np.clip((np.asarray(grown) - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.nan_to_num(hot, nan=1.0)


def overlay(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], map_range: tuple[float, float]
) -> NDArray[np.uint8]:
    """Draw the map, float32 [h, w], over the frame, uint8 [H, W, 3].

    The frame is unchanged where the map is in the lower two fifths of `map_range`, the values of normal frames.
    """
    hot = heat(anomaly_map, map_range, *image.shape[:2])
    opacity = np.clip((hot - _CLEAR) / (_FULL - _CLEAR), 0, 1)[:, :, np.newaxis] * np.float32(_OPAQUE)
    colours = LUT[(hot * 255).astype(np.uint8)]
    laid: NDArray[np.uint8] = np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8)
    return laid


def picture(image: NDArray[np.uint8], decision: Decision, map_range: tuple[float, float]) -> Image.Image:
    """`overlay` in a border of the verdict's colour. A band above it shows the verdict's shape, score and threshold.

    A ring is a pass, a triangle is unsure, a cross is a reject. The border lies outside the frame.
    """
    height, width = image.shape[:2]
    border = max(2, round(0.012 * min(height, width)))
    band = max(20, round(0.07 * min(height, width)))
    ground, ink = COLOURS[decision.verdict]
    canvas = Image.new("RGB", (width + 2 * border, height + band + border), ground)
    canvas.paste(Image.fromarray(overlay(image, decision.anomaly_map, map_range)), (border, band))
    draw = ImageDraw.Draw(canvas)
    _mark(draw, decision.verdict, border + band / 2, band / 2, band * 0.3, ink)
    font = ImageFont.load_default(band * 0.55)
    draw.text((border + band * 1.1, band / 2), _words(decision), fill=ink, font=font, anchor="lm")
    return canvas


def write_picture(path: Path, image: NDArray[np.uint8], decision: Decision, map_range: tuple[float, float]) -> None:
    """Write `picture` as PNG, whole or not at all. OutputError."""
    out = io.BytesIO()
    picture(image, decision, map_range).save(out, "PNG", compress_level=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [out.getvalue()])
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}): check the folder and its free space"
        ) from error


def _words(decision: Decision) -> str:
    limit = f"> {decision.threshold:.4g}" if decision.verdict == "reject" else f"of {decision.threshold:.4g}"
    limit = limit if math.isfinite(decision.threshold) else "no threshold"
    return f"{decision.verdict.upper()}  {decision.score:.4g} {limit}  p {decision.p_value:.3g}"


def _mark(draw: ImageDraw.ImageDraw, verdict: Verdict, x: float, y: float, r: float, ink: RGB) -> None:
    line = max(2, round(r * 0.4))
    match verdict:
        case "pass":
            draw.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=line)
        case "unsure":
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=ink)
        case "reject":
            draw.line((x - r, y - r, x + r, y + r), fill=ink, width=line)
            draw.line((x - r, y + r, x + r, y - r), fill=ink, width=line)
