"""Yes/no questions on pairs of pictures, one edited: the miniature of HallusionBench.

A set is an original picture with thing X and without thing Y, an edited one with Y where X was,
and the questions whether X and whether Y are there: each question on both figures, each figure
with both questions, and the answers turn round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as numbers
from random import Random
from typing import Any

from PIL import Image

from difftrain import images, seeds
from difftrain.shapes import families, pool, scenes
from difftrain.shapes.pool import Split
from difftrain.shapes.scenes import COLOURS, SHAPES, Thing

MOST_OTHERS = 5
Look = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures and the two things asked for: `shown` only in the original, `hidden` only in
    the edited."""

    original: Image.Image
    edited: Image.Image
    shown: Look
    hidden: Look


def question(look: Look) -> str:
    """The words of families.verify."""
    shape, paint = look
    return f"Is there a {paint} {shape} in the picture?"


def identity(image: Image.Image, look: Look, answer: str) -> str:
    """The sample id of one question on one picture."""
    return images.sample_id([(image.size, image.tobytes())], question(look), answer)


def _ours(image: Image.Image, look: Look, answer: str) -> bool:
    """Whether the sample falls into the bench split's own buckets."""
    bucket = int(identity(image, look, answer), 16) % pool.BUCKETS
    return bucket in pool.OWN_BUCKETS[Split.bench]


def _edits(things: Sequence[Thing], hidden: Look) -> Iterator[Image.Image]:
    """The picture with another thing in the first one's tile, at every small shift."""
    shape, paint = hidden
    for x in range(-2, 3):
        for y in range(-2, 3):
            new = replace(things[0], shape=shape, colour=paint, shift=(x, y))
            yield scenes.shapes([new, *things[1:]])


def _attempt(rng: Random) -> Pair | None:
    """A pair all of whose four questions are the bench split's, or None."""
    shown = families.look(rng)
    others: list[Look] = []
    while len(others) < rng.randint(1, MOST_OTHERS):
        if (found := families.look(rng)) != shown:
            others.append(found)
    things = families.scatter(rng, [shown, *others])
    original = scenes.shapes(things)
    if not _ours(original, shown, "Yes"):
        return None
    absent = [(shape, paint) for shape in SHAPES for paint in COLOURS]
    absent = [look for look in absent if look != shown and look not in others]
    rng.shuffle(absent)
    for hidden in absent:
        if not _ours(original, hidden, "No"):
            continue
        for edited in _edits(things, hidden):
            if _ours(edited, shown, "No") and _ours(edited, hidden, "Yes"):
                return Pair(original, edited, shown, hidden)
    return None


def draw(index: int, seed: int) -> Pair:
    """Pair number `index`."""
    for attempt in numbers():
        rng = Random(seeds.derive(seed, "pairs", index, attempt))
        if pair := _attempt(rng):
            return pair
    raise AssertionError("unreachable")


def _of_pair(pair: Pair, set_id: int) -> Iterator[dict[str, Any]]:
    for figure_id, image in ((1, pair.original), (2, pair.edited)):
        for question_id, look in enumerate((pair.shown, pair.hidden)):
            answer = "Yes" if (figure_id == 1) == (question_id == 0) else "No"
            category, subcategory = "VD", "figure"
            places = (category, subcategory, set_id, figure_id, question_id)
            yield {
                "index": "_".join(["shapes", *map(str, places)]),
                "category": category,
                "subcategory": subcategory,
                "l2-category": f"{category}_{subcategory}",
                "visual_input": str(figure_id),
                "set_id": str(set_id),
                "figure_id": str(figure_id),
                "question_id": str(question_id),
                "question": question(look),
                "answer": answer,
                "image": pool.png(image),
                "sample_id": identity(image, look, answer),
            }


def yes_no_items(seed: int) -> Iterator[dict[str, Any]]:
    """Items without end, four to a set: two figures with two questions each."""
    for set_id in numbers():
        yield from _of_pair(draw(set_id, seed), set_id)
