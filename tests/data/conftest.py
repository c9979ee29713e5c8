"""Tiny real things: pictures drawn by Pillow, jsonl files of a few rows."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

Encode = Callable[..., bytes]
WriteRows = Callable[..., Path]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """A picture as a file's bytes."""

    def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, format=kind, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture(scope="session")
def red_square() -> Image.Image:
    """800 x 600 white, red from (200, 150) to (400, 450)."""
    image = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(image).rectangle((200, 150, 399, 449), fill=(255, 0, 0))
    return image


@pytest.fixture
def write_rows(tmp_path: Path, encode: Encode, red_square: Image.Image) -> WriteRows:
    """A jsonl beside `images/red.png`; rows are objects, or strings that stand as they are."""

    def written(*rows: Any, name: str = "my.jsonl") -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / "red.png").write_bytes(encode(red_square))
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return written
