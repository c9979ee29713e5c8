"""Drawing: a white square of 4 x 4 tiles, one thing to a tile. No questions here.

A tile is 28 pixels, the patch of Qwen2.5-VL after merging, so one tile is one image token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

TILE = 28
GRID = 4
SIDE = TILE * GRID
LEVELS = 8
"""Heights a bar can have, in half tiles."""

COLOURS = {
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
"""Five by seven bitmaps, so that pictures do not depend on a font file."""

Rgb = tuple[int, int, int]
Tile = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn shape: `tile` is (row, column), `size` in pixels, `contrast` 1 full to 0 white."""

    shape: str
    colour: str
    tile: Tile
    size: int = 22
    contrast: float = 1.0
    shift: tuple[int, int] = (0, 0)


def faded(rgb: Rgb, contrast: float) -> Rgb:
    """The colour moved towards white."""
    red, green, blue = (round(255 - (255 - channel) * contrast) for channel in rgb)
    return red, green, blue


def tile_box(tile: Tile) -> list[int]:
    """[x1, y1, x2, y2] of a tile in pixels."""
    row, column = tile
    return [column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE]


def blank() -> Image.Image:
    """An empty white picture of 112 x 112 pixels."""
    return Image.new("RGB", (SIDE, SIDE), "white")


def shapes(things: Sequence[Thing]) -> Image.Image:
    """A picture with these shapes, each in its tile."""
    image = blank()
    pen = ImageDraw.Draw(image)
    for thing in things:
        left, top, right, bottom = tile_box(thing.tile)
        x = (left + right) // 2 + thing.shift[0]
        y = (top + bottom) // 2 + thing.shift[1]
        half = thing.size // 2
        box = (x - half, y - half, x + half, y + half)
        fill = faded(COLOURS[thing.colour], thing.contrast)
        if thing.shape == "circle":
            pen.ellipse(box, fill=fill)
        elif thing.shape == "square":
            pen.rectangle(box, fill=fill)
        elif thing.shape == "triangle":
            pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=fill)
        else:
            raise ValueError(f"no such shape: {thing.shape!r}")
    return image


def letters(text: str, first: Tile, contrast: float, shift: Tile = (0, 0)) -> Image.Image:
    """A picture with the letters of `text` in neighbouring tiles of one row."""
    image = blank()
    pen = ImageDraw.Draw(image)
    dot = 3
    for place, letter in enumerate(text):
        left, top, *_ = tile_box((first[0], first[1] + place))
        left, top = left + 6 + shift[0], top + 3 + shift[1]
        for y, line in enumerate(LETTERS[letter].split()):
            for x, bit in enumerate(line):
                if bit == "1":
                    corner = (left + x * dot, top + y * dot)
                    pen.rectangle(
                        (*corner, corner[0] + dot - 1, corner[1] + dot - 1),
                        fill=faded((20, 20, 20), contrast),
                    )
    return image


def bars(heights: Sequence[int], colours: Sequence[str], width: int = 20) -> Image.Image:
    """A bar chart: one column of tiles to a bar, heights in half tiles (1 to 8)."""
    image = blank()
    pen = ImageDraw.Draw(image)
    for column, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        left = column * TILE + (TILE - width) // 2
        top = SIDE - height * SIDE // LEVELS
        pen.rectangle((left, top, left + width - 1, SIDE - 1), fill=COLOURS[colour])
    return image
