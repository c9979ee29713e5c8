"""Question families with known truth: what is asked, the thought that solves it, the answer.

Each family is a function of a random generator and a knob in [0, 1] (0 simplest, 1 hardest).
The controls (prior, noise) are in controls.py.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

from difftrain.records import AnswerKind, TaskSet
from difftrain.shapes import scenes
from difftrain.shapes.scenes import COLOURS, GRID, LETTERS, LEVELS, SHAPES, Thing, Tile

TILES = [(row, column) for row in range(GRID) for column in range(GRID)]
MOST_COUNTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A drawn picture with its question. `needs_picture` is None where nobody can know."""

    image: Image.Image
    question: str
    thought: str
    answer: str
    kind: AnswerKind
    task_set: TaskSet
    options: tuple[str, ...] = ()
    needs_picture: bool | None = True


def step(knob: float, low: int, high: int) -> int:
    """The knob as a whole number from low to high."""
    return low + min(int(knob * (high - low + 1)), high - low)


def scatter(rng: Random, looks: Sequence[tuple[str, str]], size: int = 22) -> list[Thing]:
    """Things of these (shape, colour) looks on tiles of their own, a little off centre."""
    places = rng.sample(TILES, len(looks))
    return [
        Thing(shape, colour, place, size, 1.0, (rng.randint(-2, 2), rng.randint(-2, 2)))
        for (shape, colour), place in zip(looks, places, strict=True)
    ]


def look(rng: Random) -> tuple[str, str]:
    """A random shape and colour."""
    return rng.choice(SHAPES), rng.choice(list(COLOURS))


def other(rng: Random, names: Sequence[str], name: str) -> str:
    """A random name that is not this one."""
    return rng.choice([each for each in names if each != name])


def scan(things: Sequence[Thing], *features: str, marks: Mapping[Tile, str] | None = None) -> str:
    """What stands on each tile by these features, row by row: "... red circle.|....|....|....".

    A tile ends with a dot, or with its mark.
    """
    named = {
        thing.tile: "".join(f" {getattr(thing, feature)}" for feature in features)
        for thing in things
    }
    texts = {tile: named.get(tile, "") + (marks or {}).get(tile, ".") for tile in TILES}
    rows = ("".join(texts[row, column] for column in range(GRID)) for row in range(GRID))
    return "|".join(rows).lstrip()


def running(things: Sequence[Thing], feature: str, names: Sequence[str]) -> dict[Tile, str]:
    """The running number of each thing among those of its name, row by row; of these names."""
    counted: Counter[str] = Counter()
    numbers = {}
    for thing in sorted(things, key=lambda each: each.tile):
        name = getattr(thing, feature)
        if name in names:
            counted[name] += 1
            numbers[thing.tile] = str(counted[name])
    return numbers


def count(rng: Random, knob: float) -> Drawn:
    """How many shapes there are; the knob is their number."""
    number = step(knob, 1, MOST_COUNTED)
    asked = rng.choice(("How many shapes are there?", "Count the shapes."))
    return Drawn(
        image=scenes.shapes(scatter(rng, [look(rng) for _ in range(number)])),
        question=asked,
        thought=f"{number} shapes",
        answer=str(number),
        kind=AnswerKind.count,
        task_set=TaskSet.perception,
    )


def count_colour(rng: Random, knob: float) -> Drawn:
    """How many shapes of one colour; the knob is the number of other shapes."""
    colour = rng.choice(list(COLOURS))
    number = rng.randint(1, 6)
    looks = [(rng.choice(SHAPES), colour) for _ in range(number)]
    looks += [
        (rng.choice(SHAPES), other(rng, list(COLOURS), colour)) for _ in range(step(knob, 0, 9))
    ]
    things = scatter(rng, looks)
    seen = scan(things, "colour", marks=running(things, "colour", [colour]))
    return Drawn(
        image=scenes.shapes(things),
        question=f"How many {colour} shapes are there?",
        thought=f"{seen}: {number}",
        answer=str(number),
        kind=AnswerKind.count,
        task_set=TaskSet.perception,
    )


def read(rng: Random, knob: float) -> Drawn:
    """Read the letters; the knob is their number."""
    length = step(knob, 1, GRID)
    text = "".join(rng.choice(list(LETTERS)) for _ in range(length))
    first = (rng.randrange(GRID), rng.randint(0, GRID - length))
    shift = (rng.randint(-2, 2), rng.randint(-2, 2))
    return Drawn(
        image=scenes.letters(text, first, rng.uniform(0.7, 1.0), shift),
        question=rng.choice(("what is written in the image?", "Read the letters.")),
        thought=f"{length} letters",
        answer=text,
        kind=AnswerKind.text,
        task_set=TaskSet.perception,
    )


def colour(rng: Random, knob: float) -> Drawn:
    """Choose the colour of the only thing of a shape; the knob fades it."""
    asked = rng.choice(SHAPES)
    shown = rng.choice(list(COLOURS))
    rest = [
        (other(rng, SHAPES, asked), rng.choice(list(COLOURS))) for _ in range(rng.randint(0, 4))
    ]
    things = scatter(rng, [(asked, shown), *rest])
    contrast = 1.0 - 0.75 * knob
    things = [Thing(t.shape, t.colour, t.tile, t.size, contrast, t.shift) for t in things]
    seen = scan(things, "shape", "colour", marks={things[0].tile: "!"})
    wrong = rng.sample([name for name in COLOURS if name != shown], 3)
    options = sorted([shown, *wrong], key=list(COLOURS).index)
    return Drawn(
        image=scenes.shapes(things),
        question=f"What colour is the {asked}?",
        thought=f"{seen}: {shown}",
        answer="ABCD"[options.index(shown)],
        kind=AnswerKind.choice,
        task_set=TaskSet.perception,
        options=tuple(options),
    )


def verify(rng: Random, knob: float) -> Drawn:
    """Whether a thing is in the picture; the knob is the number of other things."""
    shape, paint = look(rng)
    truth = rng.random() < 0.5
    rest: list[tuple[str, str]] = []
    while len(rest) < step(knob, 1, 9):
        if (found := look(rng)) != (shape, paint):
            rest.append(found)
    things = scatter(rng, [(shape, paint), *rest] if truth else rest)
    seen = scan(things, "colour", "shape", marks={things[0].tile: "!"} if truth else None)
    return Drawn(
        image=scenes.shapes(things),
        question=f"Is there a {paint} {shape} in the picture?",
        thought=f"{seen}: {'yes' if truth else 'no'}",
        answer="Yes" if truth else "No",
        kind=AnswerKind.text,
        task_set=TaskSet.perception,
    )


def boxes_answer(tiles: Sequence[Tile], label: str) -> str:
    """The gold of a locating question: JSON boxes of whole tiles, in pixels."""
    return json.dumps([{"bbox_2d": scenes.tile_box(tile), "label": label} for tile in tiles])


def locate(rng: Random, knob: float) -> Drawn:
    """Box the tile that holds one thing; the knob is the number of other things."""
    shape, paint = look(rng)
    rest: list[tuple[str, str]] = []
    while len(rest) < step(knob, 0, 8):
        if (found := look(rng)) != (shape, paint):
            rest.append(found)
    things = scatter(rng, [(shape, paint), *rest])
    row, column = things[0].tile
    seen = scan(things, "colour", "shape", marks={(row, column): f"!{row + 1}{column + 1}"})
    return Drawn(
        image=scenes.shapes(things),
        question=f"Which tile holds the {paint} {shape}? Answer with its box.",
        thought=f"{seen}: row {row + 1}, column {column + 1}",
        answer=boxes_answer([things[0].tile], "tile"),
        kind=AnswerKind.boxes,
        task_set=TaskSet.perception,
    )


def count_plus(rng: Random, knob: float) -> Drawn:
    """The number of shapes plus a stated number; the knob is the number of shapes."""
    number, plus = step(knob, 1, MOST_COUNTED), rng.randint(2, 9)
    return Drawn(
        image=scenes.shapes(scatter(rng, [look(rng) for _ in range(number)])),
        question=f"Count the shapes and add {plus}.",
        thought=f"{number} shapes, {number} + {plus} = {number + plus}",
        answer=str(number + plus),
        kind=AnswerKind.number,
        task_set=TaskSet.reasoning,
    )


def compare(rng: Random, knob: float) -> Drawn:
    """Which of two shapes is there more often; the knob makes the lead small."""
    lead = step(1 - knob, 1, 5)
    fewer = rng.randint(1, 5)
    winner = rng.randrange(2)
    first, second = rng.sample(SHAPES, 2)
    numbers = (fewer + lead, fewer) if winner == 0 else (fewer, fewer + lead)
    looks = [
        (shape, rng.choice(list(COLOURS)))
        for shape, number in zip((first, second), numbers, strict=True)
        for _ in range(number)
    ]
    things = scatter(rng, looks)
    seen = scan(things, "shape", marks=running(things, "shape", [first, second]))
    return Drawn(
        image=scenes.shapes(things),
        question="Which are there more of?",
        thought=f"{seen}: {first}{numbers[0]}, {second}{numbers[1]}",
        answer="AB"[winner],
        kind=AnswerKind.choice,
        task_set=TaskSet.reasoning,
        options=(f"{first}s", f"{second}s"),
    )


def bar(rng: Random, knob: float) -> Drawn:
    """The height of two bars together; the knob is the number of bars."""
    bars = step(knob, 2, GRID)
    heights = [rng.randint(1, LEVELS) for _ in range(bars)]
    colours = rng.sample(list(COLOURS), bars)
    one, two = rng.sample(range(bars), 2)
    total = heights[one] + heights[two]
    asked = sorted((one, two))
    seen = " ".join(f"{colours[i]} {heights[i]}{'!' * (i in asked)}" for i in range(bars))
    return Drawn(
        image=scenes.bars(heights, colours, rng.randint(16, 24)),
        question=f"What are the {colours[one]} bar and the {colours[two]} bar together?",
        thought=f"{seen}: {heights[asked[0]]} + {heights[asked[1]]} = {total}",
        answer=str(total),
        kind=AnswerKind.number,
        task_set=TaskSet.reasoning,
    )


def odd(rng: Random, knob: float) -> Drawn:
    """The row of the only thing of another colour; the knob makes all things small."""
    shape, paint = look(rng)
    strange = other(rng, list(COLOURS), paint)
    place = rng.choice(TILES)
    size = step(1 - knob, 6, 22)
    shift = (rng.randint(-2, 2), rng.randint(-2, 2))
    things = [
        Thing(shape, strange if tile == place else paint, tile, size, 1.0, shift) for tile in TILES
    ]
    seen = scan(things, "colour", marks={place: f"!{place[0] + 1}"})
    return Drawn(
        image=scenes.shapes(things),
        question="Which row holds the odd one out?",
        thought=f"{seen}: row {place[0] + 1}",
        answer="ABCD"[place[0]],
        kind=AnswerKind.choice,
        task_set=TaskSet.reasoning,
        options=("row 1", "row 2", "row 3", "row 4"),
    )
