"""Gold boxes: read as any of the forms found in the wild, written once in the model's pixels.

One form comes out: JSON [{"bbox_2d": [x1, y1, x2, y2], "label": ...}], pixels of the resized
picture. Not here: comparing boxes (difftrain/grade).
"""

import ast
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from difftrain.config.data import BoxFormat
from difftrain.data.quarantine import RowError
from difftrain.images import DecodedImage, Size

GRID = 1000
"""Relative boxes run from 0 to this along both sides."""
SLACK = 2
"""Pixels a box may reach beyond the picture (rounding, inclusive corners); it is then cut off."""
FENCE = re.compile(r"^```\w*\s*|\s*```$")


@dataclass(frozen=True, slots=True)
class Box:
    """Corners with x1 < x2 and y1 < y2, and what is in it."""

    corners: tuple[float, float, float, float]
    label: str | None


def in_model_pixels(gold: str, picture: DecodedImage, scale: BoxFormat) -> str:
    """A gold of boxes in pixels of the resized picture, as JSON. Raises RowError."""
    found = parsed(gold)
    reach = {
        BoxFormat.pixels: picture.original_size,
        BoxFormat.resized: picture.size,
        BoxFormat.relative: (GRID, GRID),
        BoxFormat.unit: (1, 1),
    }[scale]
    written = [written_out(box, reach, picture.size, scale) for box in found]
    return json.dumps(written, ensure_ascii=False)


def written_out(box: Box, reach: Size, size: Size, scale: BoxFormat) -> dict[str, Any]:
    """One box, from a frame of `reach` to one of `size` (both width, height), to 0.1 pixel."""
    x1, y1, x2, y2 = box.corners
    slack = SLACK if min(reach) > 1 else 0.01
    if x1 < -slack or y1 < -slack or x2 > reach[0] + slack or y2 > reach[1] + slack:
        other = BoxFormat.pixels if scale is not BoxFormat.pixels else BoxFormat.relative
        raise RowError(
            f"unusable gold: box {tidy(box.corners)} reaches beyond {reach[0]} x {reach[1]} "
            f"(data.box_format={scale.value}); is data.box_format={other.value} meant?"
        )
    inside = [
        min(max(value, 0), reach[axis % 2]) * size[axis % 2] / reach[axis % 2]
        for axis, value in enumerate(box.corners)
    ]
    if inside[2] - inside[0] < 0.1 or inside[3] - inside[1] < 0.1:
        raise RowError(f"unusable gold: box {tidy(box.corners)} has no area inside the picture")
    label = {} if box.label is None else {"label": box.label}
    return {"bbox_2d": tidy(inside), **label}


def tidy(values: Sequence[float]) -> list[float | int]:
    """Numbers to 0.1, whole ones without a point."""
    rounded = [round(value, 1) for value in values]
    return [int(value) if value == int(value) else value for value in rounded]


def parsed(gold: str) -> list[Box]:
    """The boxes of a gold string: JSON, else a Python literal. Raises RowError."""
    text = FENCE.sub("", gold.strip())
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise RowError(f"unusable gold: not a list of boxes: {gold[:80]!r}") from error
    entries = [value] if isinstance(value, dict) or corners_of(value) else value
    if not isinstance(entries, list | tuple) or not entries:
        raise RowError(f"unusable gold: not a list of boxes: {gold[:80]!r}")
    return [box_of(entry) for entry in entries]


def box_of(entry: Any) -> Box:
    """One entry as a Box: {"bbox_2d", "label"} or four numbers; swapped corners are put right."""
    corners = corners_of(entry.get("bbox_2d") if isinstance(entry, dict) else entry)
    if corners is None:
        raise RowError(f"unusable gold: not a box (bbox_2d with four numbers): {str(entry)[:80]}")
    x1, y1, x2, y2 = corners
    label = entry.get("label") if isinstance(entry, dict) else None
    return Box(
        (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)),
        None if label is None else str(label),
    )


def corners_of(value: Any) -> tuple[float, float, float, float] | None:
    """Four finite numbers, or None."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(type(each) in (int, float) and math.isfinite(each) for each in value):
        return None
    x1, y1, x2, y2 = value
    return float(x1), float(y1), float(x2), float(y2)
