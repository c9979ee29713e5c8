"""Drawing: a white square of 4 x 4 tiles, one object to a tile.

A tile is 28 pixels, the patch of Qwen2.5-VL after merging, so one tile is one image token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

TILE = 28
GRID = 4
SIDE = TILE * GRID
LEVELS = 8
"""Heights of a bar, in half tiles."""

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 80, 220),
    "orange": (245, 155, 30),
    "purple": (150, 60, 190),
}
SHAPES = ("circle", "square", "triangle")
LETTERS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "X": "10001 10001 01010 00100 01010 10001 10001",
}
"""Bitmaps of 5 x 7, so that images do not depend on a font file."""
DOT = 3
"""Pixels of a letter's dot."""

Rgb = tuple[int, int, int]
Tile = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A drawn shape: `tile` is (row, column), `size` in pixels, `contrast` 1 full to 0 white."""

    shape: str
    color: str
    tile: Tile
    size: int = 22
    contrast: float = 1.0
    shift: tuple[int, int] = (0, 0)


def fade(rgb: Rgb, contrast: float) -> Rgb:
    """The color moved towards white."""
    red, green, blue = (round(255 - (255 - channel) * contrast) for channel in rgb)
    return red, green, blue


def tile_box(tile: Tile) -> list[int]:
    """[x1, y1, x2, y2] of a tile in pixels."""
    row, column = tile
    return [column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE]


def blank_image() -> Image.Image:
    """A white image of 112 x 112 pixels."""
    return Image.new("RGB", (SIDE, SIDE), "white")


def draw_shapes(objects: Sequence[SceneObject]) -> Image.Image:
    """An image with these objects, each in its tile."""
    image = blank_image()
    pen = ImageDraw.Draw(image)
    for item in objects:
        left, top, right, bottom = tile_box(item.tile)
        x = (left + right) // 2 + item.shift[0]
        y = (top + bottom) // 2 + item.shift[1]
        half = item.size // 2
        box = (x - half, y - half, x + half, y + half)
        fill = fade(COLORS[item.color], item.contrast)
        if item.shape == "circle":
            pen.ellipse(box, fill=fill)
        elif item.shape == "square":
            pen.rectangle(box, fill=fill)
        elif item.shape == "triangle":
            pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=fill)
        else:
            raise ValueError(f"shape={item.shape!r}: must be one of {', '.join(SHAPES)}")
    return image


def draw_letters(text: str, first: Tile, contrast: float, shift: Tile = (0, 0)) -> Image.Image:
    """An image with the letters of `text` in neighboring tiles of one row."""
    image = blank_image()
    pen = ImageDraw.Draw(image)
    fill = fade((20, 20, 20), contrast)
    for index, letter in enumerate(text):
        left, top, *_ = tile_box((first[0], first[1] + index))
        left, top = left + 6 + shift[0], top + 3 + shift[1]
        for row, bits in enumerate(LETTERS[letter].split()):
            for column, bit in enumerate(bits):
                if bit == "1":
                    x, y = left + column * DOT, top + row * DOT
                    pen.rectangle((x, y, x + DOT - 1, y + DOT - 1), fill=fill)
    return image


def draw_bars(heights: Sequence[int], colors: Sequence[str], width: int = 20) -> Image.Image:
    """A bar chart: one column of tiles to a bar, heights in half tiles (1 to 8)."""
    image = blank_image()
    pen = ImageDraw.Draw(image)
    for column, (height, color) in enumerate(zip(heights, colors, strict=True)):
        left = column * TILE + (TILE - width) // 2
        top = SIDE - height * SIDE // LEVELS
        pen.rectangle((left, top, left + width - 1, SIDE - 1), fill=COLORS[color])
    return image
