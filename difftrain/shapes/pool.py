"""Samples of the shapes world, by split, family and index; the same on every machine.

The shapes world is drawn images with questions; a family (families.py) is one kind of question.
A sample's content hash alone decides to which split the sample belongs, so splits share no sample.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import count
from random import Random

from PIL import Image

from difftrain import images, seeds
from difftrain.records import Sample, TaskSet
from difftrain.shapes import families
from difftrain.shapes.families import DrawnSample


class Split(StrEnum):
    """What a drawing may be used for."""

    pretrain = "pretrain"  # of the tiny model
    pool = "pool"  # the built-in pool of training samples
    bench = "bench"  # items of the built-in shapes/ benchmarks


BUCKETS = (*[Split.pretrain] * 6, Split.pool, Split.bench)  # by content hash modulo 8
FAMILIES: dict[str, tuple[Callable[[Random, float], DrawnSample], TaskSet, int]] = {
    "count": (families.count, TaskSet.perception, 10),
    "count_colour": (families.count_color, TaskSet.perception, 10),
    "read": (families.read, TaskSet.perception, 12),
    "colour": (families.name_color, TaskSet.perception, 6),
    "verify": (families.verify, TaskSet.perception, 4),
    "locate": (families.locate, TaskSet.perception, 12),
    "count_plus": (families.count_plus, TaskSet.reasoning, 12),
    "compare": (families.compare, TaskSet.reasoning, 5),
    "bar": (families.bar, TaskSet.reasoning, 12),
    "odd": (families.odd, TaskSet.reasoning, 5),
    "prior": (families.prior, TaskSet.reasoning, 6),
    "noise": (families.noise, TaskSet.perception, 6),
}
"""Each family's drawing function, task set, and percentage of the training pool. The keys are
the samples' tasks and part of their seeds, so their spelling must not change."""
MIX = {family: percent for family, (_, _, percent) in FAMILIES.items()}


def drawn_id(image: Image.Image, question: str, answer: str) -> str:
    """The sample id of a drawn image with its question and answer."""
    return images.sample_id([(image.size, image.tobytes())], question, answer)


def in_split(sample_id: str, split: Split) -> bool:
    """Whether a sample id (a content hash) belongs to the split."""
    return BUCKETS[int(sample_id, 16) % len(BUCKETS)] == split


def draw(split: Split, family: str, index: int, seed: int) -> tuple[str, float, DrawnSample]:
    """(id, difficulty, drawing) number `index` of a family; retries until it is in the split."""
    attempts = count()
    while True:
        rng = Random(seeds.derive(seed, "shapes", split, family, index, next(attempts)))
        gen_difficulty = rng.random()
        drawn = FAMILIES[family][0](rng, gen_difficulty)
        sample_id = drawn_id(drawn.image, drawn.question, drawn.answer)
        if in_split(sample_id, split):
            return sample_id, gen_difficulty, drawn


def sample(split: Split, family: str, index: int, seed: int) -> Sample:
    """Sample number `index` of a family in a split."""
    sample_id, gen_difficulty, drawn = draw(split, family, index, seed)
    return Sample(
        sample_id=sample_id,
        images=(images.to_png(drawn.image, compress_level=6),),
        question=drawn.question,
        answer=drawn.answer,
        answer_kind=drawn.answer_kind,
        options=drawn.options,
        task=family,
        task_set=FAMILIES[family][1],
        source=f"shapes/{split}/{family}/{index}",
        requires_image=drawn.requires_image,
        gen_difficulty=gen_difficulty,
        rationale=drawn.rationale,
    )


def samples(split: Split, size: int, seed: int = 0) -> Iterator[Sample]:
    """The first `size` distinct samples of a split; the family most behind its share is next."""
    indices = {family: count() for family in MIX}
    credit = dict.fromkeys(MIX, 0)
    ids: set[str] = set()
    for _ in range(size):
        for family, percent in MIX.items():
            credit[family] += percent
        family = max(credit, key=lambda family: credit[family])
        credit[family] -= sum(MIX.values())
        candidates = (sample(split, family, index, seed) for index in indices[family])
        new = next(candidate for candidate in candidates if candidate.sample_id not in ids)
        ids.add(new.sample_id)
        yield new
