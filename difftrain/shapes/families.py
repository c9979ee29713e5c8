"""The shapes world: drawings on a white square of 4 x 4 tiles, and families of questions on them.

A tile is 28 pixels wide, so one tile is one image token of Qwen2.5-VL. A family is a function that
draws a sample; `gen_difficulty` sets how hard (0 easiest, 1 hardest). Two families are special:
`prior` can be answered from the text alone, and `noise` cannot be answered at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from difftrain.records import AnswerKind

TILE = 28  # pixels on a side
GRID = 4  # tiles in a row, and in a column
SIDE = TILE * GRID  # pixels
LEVELS = 8  # number of possible heights of a bar, which are half tiles
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 80, 220),
    "orange": (245, 155, 30),
    "purple": (150, 60, 190),
}
SHAPES = ("circle", "square", "triangle")
LETTERS = {  # bitmaps of 5 x 7, so that images do not depend on a font file
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "X": "10001 10001 01010 00100 01010 10001 10001",
}
DOT = 3  # pixels on a side of one bit of a letter
TILES = [(row, column) for row in range(GRID) for column in range(GRID)]
MAX_COUNT = 10  # of shapes in a question that counts them

Tile = tuple[int, int]
Look = tuple[str, str]  # shape and color
Shift = tuple[int, int]  # offset (x, y) in pixels from the center of a tile


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A drawn shape: `tile` is (row, column), `size` in pixels, `contrast` 1 full to 0 white."""

    shape: str
    color: str
    tile: Tile
    size: int = 22
    contrast: float = 1.0
    shift: Shift = (0, 0)


def _fade(rgb: tuple[int, int, int], contrast: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 - (255 - channel) * contrast) for channel in rgb)
    return red, green, blue


def tile_box(tile: Tile) -> list[int]:
    """[x1, y1, x2, y2] of a tile in pixels."""
    top, left = tile[0] * TILE, tile[1] * TILE
    return [left, top, left + TILE, top + TILE]


def draw_shapes(objects: Sequence[SceneObject]) -> Image.Image:
    """An image with these objects, each in its tile."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    for item in objects:
        left, top, right, bottom = tile_box(item.tile)
        x, y = (left + right) // 2 + item.shift[0], (top + bottom) // 2 + item.shift[1]
        half = item.size // 2
        box = (x - half, y - half, x + half, y + half)
        fill = _fade(COLORS[item.color], item.contrast)
        if item.shape == "circle":
            pen.ellipse(box, fill=fill)
        elif item.shape == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=fill)
    return image


def draw_letters(text: str, first: Tile, contrast: float, shift: Shift = (0, 0)) -> Image.Image:
    """An image with the letters of `text` in neighboring tiles of one row, the first in `first`."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    fill = _fade((20, 20, 20), contrast)
    for index, letter in enumerate(text):
        left, top, *_ = tile_box((first[0], first[1] + index))
        left, top = left + 6 + shift[0], top + 3 + shift[1]  # 6, 3: centers 15 x 21 pixels
        for row, bits in enumerate(LETTERS[letter].split()):
            for column, bit in enumerate(bits):
                if bit == "1":
                    x, y = left + column * DOT, top + row * DOT
                    pen.rectangle((x, y, x + DOT - 1, y + DOT - 1), fill=fill)
    return image


def draw_bars(heights: Sequence[int], colors: Sequence[str], width: int = 20) -> Image.Image:
    """A bar chart: one column of tiles per bar, heights in half tiles (1 to 8)."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    for column, (height, color) in enumerate(zip(heights, colors, strict=True)):
        left = column * TILE + (TILE - width) // 2
        top = SIDE - height * SIDE // LEVELS
        pen.rectangle((left, top, left + width - 1, SIDE - 1), fill=COLORS[color])
    return image


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """A drawn image with its question. `requires_image` is None if nobody can know the answer."""

    image: Image.Image
    question: str
    rationale: str  # the steps that lead to the answer
    answer: str
    answer_kind: AnswerKind
    options: tuple[str, ...] = ()
    requires_image: bool | None = True
    signs: tuple[int, ...] = ()  # ranks of the signs in the question's order: see signs.py


def scale(gen_difficulty: float, low: int, high: int) -> int:
    """The difficulty as an integer from low to high."""
    return low + min(int(gen_difficulty * (high - low + 1)), high - low)


def random_look(rng: Random) -> Look:
    """A random pair of shape and color."""
    return rng.choice(SHAPES), rng.choice(list(COLORS))


def random_looks(rng: Random, number: int) -> list[Look]:
    """`number` random pairs of shape and color."""
    return [random_look(rng) for _ in range(number)]


def random_shift(rng: Random) -> Shift:
    """An offset of at most two pixels from a tile's center."""
    return rng.randint(-2, 2), rng.randint(-2, 2)


def _random_other(rng: Random, names: Sequence[str], excluded: str) -> str:
    return rng.choice([name for name in names if name != excluded])


def scatter(rng: Random, looks: Sequence[Look]) -> list[SceneObject]:
    """Objects of these looks on different tiles, slightly off center."""
    placed = zip(looks, rng.sample(TILES, len(looks)), strict=True)
    return [SceneObject(*look, tile, shift=random_shift(rng)) for look, tile in placed]


def count(rng: Random, gen_difficulty: float) -> DrawnSample:
    """How many shapes there are; the difficulty is their number."""
    number = scale(gen_difficulty, 1, MAX_COUNT)
    question = rng.choice(("How many shapes are there?", "Count the shapes."))
    image = draw_shapes(scatter(rng, random_looks(rng, number)))
    return DrawnSample(image, question, f"{number} shapes", str(number), AnswerKind.count)


def read(rng: Random, gen_difficulty: float) -> DrawnSample:
    """Read the letters; the difficulty is their number."""
    length = scale(gen_difficulty, 1, GRID)
    text = "".join(rng.choice(list(LETTERS)) for _ in range(length))
    first = (rng.randrange(GRID), rng.randint(0, GRID - length))
    shift = random_shift(rng)
    image = draw_letters(text, first, rng.uniform(0.7, 1.0), shift)
    question = rng.choice(("what is written in the image?", "Read the letters."))
    return DrawnSample(image, question, f"{length} letters", text, AnswerKind.text)


def count_plus(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The number of shapes plus a stated number; the difficulty is the number of shapes."""
    number, plus = scale(gen_difficulty, 1, MAX_COUNT), rng.randint(2, 9)
    image = draw_shapes(scatter(rng, random_looks(rng, number)))
    question, answer = f"Count the shapes and add {plus}.", str(number + plus)
    rationale = f"{number} shapes, {number} + {plus} = {answer}"
    return DrawnSample(image, question, rationale, answer, AnswerKind.number)


def compare(rng: Random, gen_difficulty: float) -> DrawnSample:
    """Which of two shapes is more frequent; a higher difficulty makes the lead smaller."""
    lead = scale(1 - gen_difficulty, 1, 5)
    fewer = rng.randint(1, 5)
    winner = rng.randrange(2)
    first, second = rng.sample(SHAPES, 2)
    numbers = (fewer + lead, fewer) if winner == 0 else (fewer, fewer + lead)
    shapes = [first] * numbers[0] + [second] * numbers[1]
    objects = scatter(rng, [(shape, rng.choice(list(COLORS))) for shape in shapes])
    rationale = f"{first} {numbers[0]}, {second} {numbers[1]}"
    question, options = "Which are there more of?", (f"{first}s", f"{second}s")
    image = draw_shapes(objects)
    return DrawnSample(image, question, rationale, "AB"[winner], AnswerKind.choice, options)


def bar(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The sum of two bars' heights; the difficulty is the number of bars."""
    number = scale(gen_difficulty, 2, GRID)
    heights = [rng.randint(1, LEVELS) for _ in range(number)]
    colors = rng.sample(list(COLORS), number)
    a, b = rng.sample(range(number), 2)
    answer = str(heights[a] + heights[b])
    question = f"What are the {colors[a]} bar and the {colors[b]} bar together?"
    rationale = f"{heights[a]} + {heights[b]} = {answer}"
    image = draw_bars(heights, colors, rng.randint(16, 24))
    return DrawnSample(image, question, rationale, answer, AnswerKind.number)


def odd(rng: Random, gen_difficulty: float) -> DrawnSample:
    """The row of the only object of another color; a higher difficulty shrinks all objects."""
    shape, color = random_look(rng)
    odd_color = _random_other(rng, list(COLORS), color)
    odd_tile = rng.choice(TILES)
    size = scale(1 - gen_difficulty, 6, 22)
    shift = random_shift(rng)
    objects = [
        SceneObject(shape, odd_color if tile == odd_tile else color, tile, size, shift=shift)
        for tile in TILES
    ]
    row = odd_tile[0] + 1
    rationale = f"{odd_color}: row {row}"
    question, options = "Which row holds the odd one out?", ("row 1", "row 2", "row 3", "row 4")
    answer, image = "ABCD"[odd_tile[0]], draw_shapes(objects)
    return DrawnSample(image, question, rationale, answer, AnswerKind.choice, options)


def prior(rng: Random, gen_difficulty: float) -> DrawnSample:
    """A sum that needs only the text; the image is unrelated."""
    a, b = scale(gen_difficulty, 1, 9), rng.randint(1, 9)
    image = draw_shapes(scatter(rng, random_looks(rng, rng.randint(1, 9))))
    question = f"A box holds {a} pens and {b} cups. How many things are in the box?"
    rationale, answer = f"{a} + {b} = {a + b}", str(a + b)
    return DrawnSample(image, question, rationale, answer, AnswerKind.number, requires_image=False)


def noise(rng: Random, gen_difficulty: float) -> DrawnSample:
    """An unanswerable question: the answer is a random number that is not in the image."""
    image = draw_shapes(scatter(rng, random_looks(rng, scale(gen_difficulty, 1, 9))))
    question, answer = "Which number is on the back of the picture?", str(rng.randint(100, 999))
    return DrawnSample(image, question, "a number", answer, AnswerKind.number, requires_image=None)
