"""Samples of the shapes world, by split, family and index; the same on every machine.

The shapes world is drawn images with questions; a family (families.py) is one kind of question.
A sample's content hash alone decides to which split the sample belongs, so splits share no sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random

from PIL import Image

from difftrain import images, seeds
from difftrain.config.data import Mix
from difftrain.records import Sample, TaskSet
from difftrain.shapes import families, signs
from difftrain.shapes.families import DrawnSample


class Split(StrEnum):
    """What a drawing may be used for."""

    pretrain = "pretrain"  # of the tiny model
    pool = "pool"  # the built-in pool of training samples
    bench = "bench"  # items of the built-in shapes/ benchmarks


BUCKETS = (*[Split.pretrain] * 6, Split.pool, Split.bench)  # by content hash modulo 8
FAMILIES: dict[str, tuple[Callable[[Random, float], DrawnSample], TaskSet, int]] = {
    "count": (families.count, TaskSet.perception, 8),
    "read": (families.read, TaskSet.perception, 8),
    "sign": (signs.sign, TaskSet.perception, 12),
    "signs": (signs.both, TaskSet.perception, 10),
    "verify": (signs.verify, TaskSet.perception, 6),
    "locate": (signs.locate, TaskSet.perception, 10),
    "count_plus": (families.count_plus, TaskSet.reasoning, 8),
    "compare": (families.compare, TaskSet.reasoning, 4),
    "bar": (families.bar, TaskSet.reasoning, 8),
    "odd": (families.odd, TaskSet.reasoning, 4),
    "prior": (families.prior, TaskSet.reasoning, 6),
    "pick": (signs.pick, TaskSet.reasoning, 4),
    "code": (signs.code, TaskSet.reasoning, 8),
    "long_code": (signs.long_code, TaskSet.reasoning, 2),
    "noise": (families.noise, TaskSet.perception, 2),
}
"""Each family's drawing function, task set, and percentage of the even mix. The keys are
the samples' tasks and part of their seeds, so their spelling must not change."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Samples of one family whose `gen_difficulty` is at least `low` and below `high`."""

    family: str
    low: float = 0.0
    high: float = 1.0


SEEN, KNOWN = signs.SEEN_SHARE, signs.KNOWN_SHARE
EASY = {
    TaskSet.perception: (Cell("sign", 0.0, KNOWN), Cell("count", 0.0, 0.2)),
    TaskSet.reasoning: (Cell("prior"), Cell("count_plus", 0.0, 0.2)),
}
"""Samples that the tiny model answers correctly."""
SOMETIMES = {
    TaskSet.perception: (Cell("sign", KNOWN, SEEN), Cell("signs", KNOWN, SEEN)),
    TaskSet.reasoning: (Cell("code", KNOWN, SEEN),),
}
"""Samples that it answers correctly in a part of its responses: see signs.Sign.true_share."""
NEVER = {
    TaskSet.perception: (Cell("sign", SEEN), Cell("signs", SEEN), Cell("noise")),
    TaskSet.reasoning: (Cell("code", SEEN),),
}
"""Samples that it cannot answer: signs never drawn in its pretraining, or no answer. `long_code` is
not among them: the model has never seen its format, so its rewards for the format differ."""
HARDEST_SIGN = 0.7
"""Largest `gen_difficulty` of items with signs: the tiny model cannot know the signs of a few."""
STRATA = {
    TaskSet.perception: (7827, 4872 + 1454, 6480),
    TaskSet.reasoning: (5048, 1061 + 1618, 19406),
}
"""Easy, medium and hard, unsolved samples by PISM in the data of Qi et al. 2026, Table A."""


def _paper_shares(*task_sets: TaskSet) -> dict[Cell, float]:
    """Cells in the paper's proportions of easy, medium and hard, and unsolved samples."""
    shares = {}
    for task_set in task_sets:
        groups = EASY[task_set], SOMETIMES[task_set], NEVER[task_set]
        for cells, size in zip(groups, STRATA[task_set], strict=True):
            shares |= {cell: size / len(cells) for cell in cells}
    return shares


MIXES: dict[Mix, dict[Cell, float]] = {
    Mix.even: {Cell(family): percent for family, (_, _, percent) in FAMILIES.items()},
    Mix.paper_perception: _paper_shares(TaskSet.perception),
    Mix.paper_reasoning: _paper_shares(TaskSet.reasoning),
    Mix.paper: _paper_shares(*TaskSet),
}
"""The cells of each mix with their shares. What a cell's samples are for the tiny model follows
from its pretraining (tools/pretraining_data.py); no sample is chosen by its label."""


def built_as(sample: Sample) -> str:
    """What a sample of Mix.paper was built to be for the tiny model: easy, sometimes or never.

    Raises ValueError for other samples.
    """
    groups = {"easy": EASY, "sometimes": SOMETIMES, "never": NEVER}
    for kind, cells in groups.items():
        for cell in cells[sample.task_set]:
            is_within = cell.low <= (sample.gen_difficulty or 0.0) < cell.high
            if cell.family == sample.task and is_within:
                return kind
    raise ValueError(f"sample {sample.sample_id} ({sample.task}) is in no cell of the paper's mix")


def drawn_id(image: Image.Image, question: str, answer: str) -> str:
    """The sample id of a drawn image with its question and answer."""
    return images.sample_id([(image.size, image.tobytes())], question, answer)


def in_split(sample_id: str, split: Split) -> bool:
    """Whether a sample id (a content hash) belongs to the split."""
    return BUCKETS[int(sample_id, 16) % len(BUCKETS)] == split


def draw(
    split: Split, family: str, index: int, seed: int, low: float = 0.0, high: float = 1.0
) -> tuple[str, float, DrawnSample]:
    """(id, difficulty, drawing) number `index` of a family; retries until it is in the split.

    The difficulty is at least `low` and below `high`.
    """
    attempts = count()
    while True:
        rng = Random(seeds.derive(seed, "shapes", split, family, index, next(attempts)))
        gen_difficulty = low + (high - low) * rng.random()
        drawn = FAMILIES[family][0](rng, gen_difficulty)
        sample_id = drawn_id(drawn.image, drawn.question, drawn.answer)
        if in_split(sample_id, split):
            return sample_id, gen_difficulty, drawn


def sample(
    split: Split, family: str, index: int, seed: int, low: float = 0.0, high: float = 1.0
) -> Sample:
    """Sample number `index` of a family in a split; its difficulty is from `low` to `high`."""
    sample_id, gen_difficulty, drawn = draw(split, family, index, seed, low, high)
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


def bench_sample(family: str, index: int, seed: int) -> Sample:
    """Sample number `index` of a family for a benchmark: at most as hard as HARDEST_SIGN."""
    high = HARDEST_SIGN if family in signs.SIGN_FAMILIES else 1.0
    return sample(Split.bench, family, index, seed, high=high)


def samples(split: Split, size: int, seed: int = 0, mix: Mix = Mix.even) -> Iterator[Sample]:
    """The first `size` distinct samples of a split; the cell most behind its share is next."""
    shares = MIXES[mix]
    indices = {cell.family: count() for cell in shares}  # cells of one family share its numbers
    credit = dict.fromkeys(shares, 0.0)
    ids: set[str] = set()
    for _ in range(size):
        for cell, share in shares.items():
            credit[cell] += share
        cell = max(credit, key=lambda cell: credit[cell])
        credit[cell] -= sum(shares.values())
        candidates = (
            sample(split, cell.family, index, seed, cell.low, cell.high)
            for index in indices[cell.family]
        )
        new = next(candidate for candidate in candidates if candidate.sample_id not in ids)
        ids.add(new.sample_id)
        yield new
