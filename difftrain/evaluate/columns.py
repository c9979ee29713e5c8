"""Reads the columns of official items, as TSV rows, JSON rows or data-set rows spell them."""

import ast
import math
from collections.abc import Sequence
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate.types import Item, Part

IMAGE_COLUMNS = tuple(f"image_{number}" for number in range(1, 8))


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or the empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def first(item: Item, *columns: str) -> Any:
    """The first of these columns that is not empty. Raises ValueError if all are."""
    for column in columns:
        if not is_empty(item.get(column)):
            return item[column]
    raise ValueError(f"the item has none of {', '.join(columns)}; it has {', '.join(item)}")


def text(item: Item, *columns: str) -> str:
    """The first of these columns that is not empty, as text."""
    return str(first(item, *columns))


def as_list(value: Any) -> list[Any]:
    """A list cell: a list, the text of a Python list (data-set columns only), or one value."""
    if isinstance(value, str) and value.strip().startswith("["):
        return list(ast.literal_eval(value.strip()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return [] if is_empty(value) else [value]


def options(item: Item) -> dict[str, str]:
    """Letter -> text, from columns A, B, ... or an `options` mapping, list or list literal.

    Empty options are left out and the others keep their letters.
    """
    given = item.get("options")
    if isinstance(given, dict):
        cells = given
    elif not is_empty(given):
        cells = dict(zip(LETTERS, as_list(given), strict=False))
    else:
        cells = item
    return {letter: str(cells[letter]) for letter in LETTERS if not is_empty(cells.get(letter))}


def images(item: Item) -> list[Any]:
    """The item's images, as they come: bytes, paths, decoded images; None where one is unused.

    `image` goes before `image_path`, because a path may be only a name inside the TSV's folder.
    """
    numbered = [item.get(column) for column in IMAGE_COLUMNS]
    if any(image is not None for image in numbered):
        return numbered
    for column in ("decoded_image", "image", "image_path"):
        cell = item.get(column)
        if cell is not None and not is_empty(cell):
            return as_list(cell)
    return []


def images_then_text(item: Item, text: str) -> list[Part]:
    """A prompt: one part for each image of the item, then the text."""
    parts: list[Part] = [
        {"type": "image", "value": image} for image in images(item) if image is not None
    ]
    return [*parts, {"type": "text", "value": text}]


def images_then_question(item: Item) -> list[Part]:
    """A prompt: the images, then the question as it stands."""
    return images_then_text(item, text(item, "question"))
