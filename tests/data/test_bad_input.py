"""Broken input: every row becomes a Sample or is rejected with a reason."""

import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftrain.config.data import DataConfig, Source
from difftrain.data import build, dataset
from difftrain.data.quarantine import RejectedRow
from difftrain.records import Sample


def decompression_bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 30,000 x 30,000 pixels."""

    def chunk(chunk_type: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + chunk_type
            + content
            + struct.pack(">I", zlib.crc32(chunk_type + content))
        )

    # Width, height, 8 bits per channel, color type 2 (RGB), and the three default methods.
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def encode_image(image: Image.Image, image_format: str, **options) -> bytes:
    """The bytes of an image file; `encode` is a fixture, which module constants cannot use."""
    buffer = BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def rotated_jpeg() -> bytes:
    """A landscape JPEG that its EXIF orientation turns into portrait."""
    image = Image.new("RGB", (60, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # tag 0x0112 is the orientation; 6: rotate by 90 degrees
    return encode_image(image, "JPEG", exif=exif)


GRAY_16_BIT = np.linspace(0, 65535, 56 * 56).reshape(56, 56).astype(np.uint16)
FRAMES = [Image.new("RGB", (56, 56), color) for color in ("red", "blue")]
# File name -> (content, None if the file is missing; reason of the rejection, None if accepted).
IMAGE_FILES = {
    "broken.png": (b"\x89PNG\r\n\x1a\n garbage", "broken image"),
    "cut.jpg": (encode_image(Image.new("RGB", (500, 500), "green"), "JPEG")[:400], "broken image"),
    "bomb.png": (decompression_bomb(), "image too large"),
    "empty.png": (b"", "broken image"),
    "page.png": (b"<html>not here</html>", "broken image"),  # a web page under an image's name
    "gone.png": (None, "missing file"),
    "cmyk.jpg": (encode_image(Image.new("CMYK", (56, 56), (0, 255, 255, 0)), "JPEG"), None),
    "sixteen.png": (encode_image(Image.fromarray(GRAY_16_BIT), "PNG"), None),
    "moving.gif": (encode_image(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), None),
    "turned.jpg": (rotated_jpeg(), None),
}


def write_rows_with_images(
    folder: Path, image_files: dict[str, bytes | None], question: str
) -> Path:
    """A jsonl with a row per image file. A question ends in a file name, so no rows are equal."""
    for name, raw in image_files.items():
        if raw is not None:
            (folder / name).write_bytes(raw)
    path = folder / "my.jsonl"
    rows = [
        {"image_paths": [name], "prompt": f"<image>{question} {name}", "ground_truth": "\\boxed{3}"}
        for name in image_files
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bad_images_are_rejected_with_a_reason_and_unusual_images_are_read(tmp_path: Path) -> None:
    path = write_rows_with_images(
        tmp_path, {name: raw for name, (raw, _) in IMAGE_FILES.items()}, "How many in"
    )
    result = list(dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path))))
    assert len(result) == len(IMAGE_FILES)
    for row, (name, (_, reason)) in zip(result, IMAGE_FILES.items(), strict=True):
        assert isinstance(row, RejectedRow) == (reason is not None), (name, row)
        if isinstance(row, RejectedRow):
            assert row.short_reason == reason, (name, row.reason)
    by_name = dict(zip(IMAGE_FILES, result, strict=True))
    decoded = {
        name: Image.open(BytesIO(row.images[0])).convert("RGB")
        for name, row in by_name.items()
        if isinstance(row, Sample)
    }
    # The EXIF orientation is applied.
    assert decoded["turned.jpg"].height > decoded["turned.jpg"].width
    # Of the red and the blue frame, the first is used.
    red, _, blue = decoded["moving.gif"].getpixel((5, 5))
    assert red > 250 > 5 > blue
    # Yellow and magenta of CMYK are red.
    red, green, _ = decoded["cmyk.jpg"].getpixel((5, 5))
    assert red > 200 > 60 > green
    # The ramp from 0 to 65535 is scaled to 0 to 255, with the mean 127.5. Clipped, it would be 255.
    levels = np.asarray(decoded["sixteen.png"])[..., 0]
    assert 100 < levels.mean() < 155


def test_a_question_of_100_kilobytes_is_not_truncated(tmp_path: Path) -> None:
    text = "why " * 25_600  # 102,400 characters
    path = write_rows_with_images(tmp_path, {"a.png": encode_image(FRAMES[0], "PNG")}, text.strip())
    (result,) = dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path)))
    assert isinstance(result, Sample)
    assert len(result.question) > 100_000


def test_ten_thousand_equal_rows_give_one_sample_and_9999_duplicates(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(FRAMES[0], "PNG"))
    row = {"image_paths": ["a.png"], "prompt": "<image>How many?", "ground_truth": "\\boxed{3}"}
    path = tmp_path / "my.jsonl"
    path.write_text((json.dumps(row) + "\n") * 10_000)
    counts = build.build_dataset(
        DataConfig(source=Source.jsonl, path=str(path)), tmp_path / "data"
    )["counts"]
    assert (counts["rows"], counts["samples"], counts["quarantined"]) == (10_000, 1, 9_999)
    lines = (tmp_path / "data" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == 9_999
    assert "duplicate: the same images, question and answer as my.jsonl:1" in lines[-1]


@pytest.mark.parametrize("text", ["<|image_pad|>", "<|vision_start|>", "<|im_end|>"])
def test_a_question_cannot_contain_a_token_of_the_chat_template(tmp_path: Path, text: str) -> None:
    path = write_rows_with_images(tmp_path, {"a.png": encode_image(FRAMES[0], "PNG")}, text)
    (result,) = dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path)))
    assert isinstance(result, RejectedRow)
