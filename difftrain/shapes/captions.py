"""Pictures with everything in them named, tile by tile. For pretraining only; never in a pool.

Captions teach a small model to see much sooner than questions do: each gives sixteen answers.
"""

from random import Random

from difftrain.records import AnswerKind, TaskSet
from difftrain.shapes import scenes
from difftrain.shapes.families import Drawn, look, scatter
from difftrain.shapes.scenes import COLOURS, GRID, LETTERS, LEVELS

ASKED = "Describe every tile."


def of_shapes(rng: Random) -> Drawn:
    """Shapes on up to all sixteen tiles; an empty tile is a dot."""
    things = scatter(rng, [look(rng) for _ in range(rng.randint(1, GRID * GRID))])
    names = {thing.tile: f"{thing.colour} {thing.shape}" for thing in things}
    tiles = [(row, column) for row in range(GRID) for column in range(GRID)]
    return caption(scenes.shapes(things), " ".join(names.get(tile, ".") for tile in tiles))


def of_letters(rng: Random) -> Drawn:
    """A word; an empty tile is a dot."""
    length = rng.randint(1, GRID)
    text = "".join(rng.choice(list(LETTERS)) for _ in range(length))
    row, column = rng.randrange(GRID), rng.randint(0, GRID - length)
    shift = (rng.randint(-2, 2), rng.randint(-2, 2))
    image = scenes.letters(text, (row, column), rng.uniform(0.7, 1.0), shift)
    place = row * GRID + column
    return caption(image, "." * place + text + "." * (GRID * GRID - place - length))


def of_bars(rng: Random) -> Drawn:
    """Bars: colour and height of each, from the left."""
    number = rng.randint(2, GRID)
    heights = [rng.randint(1, LEVELS) for _ in range(number)]
    colours = rng.sample(list(COLOURS), number)
    image = scenes.bars(heights, colours, rng.randint(16, 24))
    return caption(image, " ".join(f"{c} {h}" for c, h in zip(colours, heights, strict=True)))


def caption(image: scenes.Image.Image, text: str) -> Drawn:
    """A picture whose answer is its description."""
    return Drawn(
        image=image,
        question=ASKED,
        thought="tiles",
        answer=text,
        kind=AnswerKind.text,
        task_set=TaskSet.perception,
    )


def draw(rng: Random) -> Drawn:
    """A described picture of one of the three sorts."""
    return rng.choice((of_shapes, of_shapes, of_letters, of_bars))(rng)
