"""A fixture for small jsonl files with an image beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Encode = Callable[..., bytes]
WriteRows = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path, encode: Encode, red_square: Image.Image) -> WriteRows:
    """A function that writes a jsonl file beside `images/red.png` and returns its path.

    A row is an object, or a string that becomes a line unchanged.
    """

    def write(*rows: Any, name: str = "my.jsonl") -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / "red.png").write_bytes(encode(red_square))
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write
