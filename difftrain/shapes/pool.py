"""Samples of the embedded world, by split, family and index; the same on every machine.

The three splits cannot share a sample: a drawing is kept only if its content hash falls into its
split's own buckets, so the ids are disjoint by construction and not by luck.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import count as numbers
from random import Random

from PIL import Image

from difftrain import images, seeds
from difftrain.records import Sample
from difftrain.shapes import controls, families
from difftrain.shapes.families import Drawn

BUCKETS = 8


class Split(StrEnum):
    """What a drawing may be used for."""

    pretrain = "pretrain"
    pool = "pool"
    bench = "bench"


OWN_BUCKETS = {Split.pretrain: range(6), Split.pool: range(6, 7), Split.bench: range(7, 8)}

FAMILIES: dict[str, Callable[[Random, float], Drawn]] = {
    "count": families.count,
    "count_colour": families.count_colour,
    "read": families.read,
    "colour": families.colour,
    "verify": families.verify,
    "locate": families.locate,
    "count_plus": families.count_plus,
    "compare": families.compare,
    "bar": families.bar,
    "odd": families.odd,
    "prior": controls.prior,
    "noise": controls.noise,
}

MIX = {
    "count": 10,
    "count_colour": 10,
    "read": 12,
    "colour": 6,
    "verify": 4,
    "locate": 12,
    "count_plus": 12,
    "compare": 5,
    "bar": 12,
    "odd": 5,
    "prior": 6,
    "noise": 6,
}
"""Percent of the training pool by family."""


def png(image: Image.Image) -> bytes:
    """The picture as PNG bytes."""
    return images.to_png(image, compress_level=6)


def draw(split: Split, family: str, index: int, seed: int) -> tuple[str, float, Drawn]:
    """Sample id, knob and drawing number `index` of a family in a split."""
    for attempt in numbers():
        rng = Random(seeds.derive(seed, "shapes", split, family, index, attempt))
        knob = rng.random()
        drawn = FAMILIES[family](rng, knob)
        pixels = [(drawn.image.size, drawn.image.tobytes())]
        identity = images.sample_id(pixels, drawn.question, drawn.answer)
        if int(identity, 16) % BUCKETS in OWN_BUCKETS[split]:
            return identity, knob, drawn
    raise AssertionError("unreachable")


def sample(split: Split, family: str, index: int, seed: int) -> Sample:
    """One Sample of the embedded world."""
    identity, knob, drawn = draw(split, family, index, seed)
    return Sample(
        sample_id=identity,
        images=(png(drawn.image),),
        question=drawn.question,
        answer=drawn.answer,
        answer_kind=drawn.kind,
        options=drawn.options,
        task=family,
        task_set=drawn.task_set,
        source=f"shapes/{split}/{family}/{index}",
        requires_image=drawn.needs_picture,
        gen_difficulty=knob,
        rationale=drawn.thought,
    )


def family_order(size: int) -> list[str]:
    """The families of a pool of `size`, in the proportions of MIX, evenly interleaved."""
    owed = dict.fromkeys(MIX, 0)
    total = sum(MIX.values())
    order = []
    for _ in range(size):
        for family, share in MIX.items():
            owed[family] += share
        chosen = max(owed, key=lambda family: owed[family])
        owed[chosen] -= total
        order.append(chosen)
    return order


def samples(split: Split, size: int, seed: int = 0) -> Iterator[Sample]:
    """The first `size` different samples of a split, in the proportions of MIX."""
    drawn: dict[str, int] = dict.fromkeys(MIX, 0)
    seen: set[str] = set()
    for family in family_order(size):
        while True:
            found = sample(split, family, drawn[family], seed)
            drawn[family] += 1
            if found.sample_id not in seen:
                break
        seen.add(found.sample_id)
        yield found
