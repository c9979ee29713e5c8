"""Yes/no questions on pairs of images, one edited: the miniature of HallusionBench.

A set is an original image with object X and without object Y, an edited image with Y in X's place,
and the questions whether X and whether Y are there. Each question is asked of both images, and
the edit reverses both answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Any

from PIL import Image

from difftrain import seeds
from difftrain.shapes import families, pool, scenes
from difftrain.shapes.families import Look, presence_question
from difftrain.shapes.scenes import COLORS, SHAPES, SceneObject

MAX_OTHERS = 5


@dataclass(frozen=True, slots=True)
class ImagePair:
    """Two images; `removed` is only in the original, `added` only in the edited one."""

    original: Image.Image
    edited: Image.Image
    removed: Look
    added: Look


def question_id(image: Image.Image, look: Look, answer: str) -> str:
    """The sample id of one question on one image."""
    return pool.drawn_id(image, presence_question(look), answer)


def in_bench(image: Image.Image, look: Look, answer: str) -> bool:
    """Whether the sample belongs to the bench split."""
    return pool.in_split(question_id(image, look, answer), pool.Split.bench)


def edited_images(objects: Sequence[SceneObject], added: Look) -> Iterator[Image.Image]:
    """The image with another object in the first one's tile, at every small shift."""
    shape, color = added
    for x in range(-2, 3):
        for y in range(-2, 3):
            new = replace(objects[0], shape=shape, color=color, shift=(x, y))
            yield scenes.draw_shapes([new, *objects[1:]])


def try_pair(rng: Random) -> ImagePair | None:
    """A pair whose four questions all belong to the bench split, or None."""
    removed = families.random_look(rng)
    others: list[Look] = []
    while len(others) < rng.randint(1, MAX_OTHERS):
        if (look := families.random_look(rng)) != removed:
            others.append(look)
    objects = families.scatter(rng, [removed, *others])
    original = scenes.draw_shapes(objects)
    if not in_bench(original, removed, "Yes"):
        return None
    absent = [(shape, color) for shape in SHAPES for color in COLORS]
    absent = [look for look in absent if look != removed and look not in others]
    rng.shuffle(absent)
    for added in absent:
        if not in_bench(original, added, "No"):
            continue
        for edited in edited_images(objects, added):
            if in_bench(edited, removed, "No") and in_bench(edited, added, "Yes"):
                return ImagePair(original, edited, removed, added)
    return None


def draw_pair(index: int, seed: int) -> ImagePair:
    """The pair of this index."""
    for attempt in count():
        rng = Random(seeds.derive(seed, "pairs", index, attempt))
        if pair := try_pair(rng):
            return pair
    raise AssertionError("unreachable")


def pair_items(pair: ImagePair, set_id: int) -> Iterator[dict[str, Any]]:
    """The four items of a set in HallusionBench's columns."""
    category, subcategory = "VD", "figure"
    for figure_id, image in ((1, pair.original), (2, pair.edited)):
        for number, look in enumerate((pair.removed, pair.added)):
            answer = "Yes" if (figure_id == 1) == (number == 0) else "No"
            index = ("shapes", category, subcategory, set_id, figure_id, number)
            yield {
                "index": "_".join(map(str, index)),
                "category": category,
                "subcategory": subcategory,
                "l2-category": f"{category}_{subcategory}",
                "visual_input": str(figure_id),
                "set_id": str(set_id),
                "figure_id": str(figure_id),
                "question_id": str(number),
                "question": presence_question(look),
                "answer": answer,
                "image": pool.to_png(image),
                "sample_id": question_id(image, look, answer),
            }


def yes_no_items(seed: int) -> Iterator[dict[str, Any]]:
    """Items without end, four to a set: two images with two questions each."""
    for set_id in count():
        yield from pair_items(draw_pair(set_id, seed), set_id)
