"""The drawn samples: the splits share none, a seed gives the same ones, and answers are true.

Samples come in families, one per function that generates them. The splits are for training (pool),
benchmarks and pretraining.
"""

import itertools
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from difftrain import images
from difftrain.config.data import Mix
from difftrain.grade import gold_problem, grade
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict
from difftrain.shapes import families, pool
from difftrain.shapes.pool import Split


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The first 600 samples of the training pool."""
    return list(pool.samples(Split.pool, 600))


def image_of(sample: Sample) -> Image.Image:
    return Image.open(BytesIO(sample.images[0])).convert("RGB")


def test_training_pool_benchmarks_and_pretraining_data_share_no_sample() -> None:
    ids = {
        split: {
            sample_id
            for family in pool.FAMILIES
            for index in range(80)
            for sample_id, _difficulty, _drawn in [pool.draw(split, family, index, seed=0)]
        }
        for split in Split
    }
    for split_a, split_b in itertools.combinations(Split, 2):
        assert not ids[split_a] & ids[split_b]


def test_samples_are_the_same_for_the_same_seed_only(samples: list[Sample]) -> None:
    repeated = list(pool.samples(Split.pool, 30))
    assert repeated == samples[:30]
    other_seed = list(pool.samples(Split.pool, 30, seed=1))
    assert not {s.sample_id for s in other_seed} & {s.sample_id for s in repeated}


def test_no_sample_occurs_twice_and_families_keep_their_proportions(samples: list[Sample]) -> None:
    assert len({sample.sample_id for sample in samples}) == 600
    for family, (_, _, percent) in pool.FAMILIES.items():
        num_samples = sum(sample.task == family for sample in samples)
        assert num_samples == pytest.approx(600 * percent / 100, abs=1)


@pytest.mark.parametrize("mix", [mix for mix in Mix if mix is not Mix.even])
def test_a_mix_has_the_papers_shares_of_easy_possible_and_impossible_samples(mix: Mix) -> None:
    """The sizes in Qi et al. 2026, Table A: easy, medium + hard, unsolved."""
    sizes = {
        Mix.paper_perception: (7827, 4872 + 1454, 6480),
        Mix.paper_reasoning: (5048, 1061 + 1618, 19406),
        Mix.paper: (12875, 9005, 25886),
    }[mix]
    samples = list(pool.samples(Split.pool, 200, mix=mix))
    built = Counter(map(pool.built_as, samples))
    counts = [built[kind] for kind in ("easy", "sometimes", "never")]
    assert sum(counts) == 200
    expected = [200 * size / sum(sizes) for size in sizes]
    assert counts == pytest.approx(expected, abs=2)


def test_a_sample_outside_the_papers_mix_was_not_built_as_anything(samples: list[Sample]) -> None:
    bar = next(sample for sample in samples if sample.task == "bar")
    with pytest.raises(ValueError, match=r"\(bar\) is in no cell of the paper's mix"):
        pool.built_as(bar)


@pytest.mark.parametrize(
    ("mix", "task_sets"),
    [
        (Mix.paper_perception, {TaskSet.perception}),
        (Mix.paper_reasoning, {TaskSet.reasoning}),
        (Mix.paper, set(TaskSet)),
    ],
)
def test_a_mix_has_samples_of_its_task_sets(mix: Mix, task_sets: set[TaskSet]) -> None:
    assert {sample.task_set for sample in pool.samples(Split.pool, 60, mix=mix)} == task_sets


def test_a_sample_is_identified_by_its_content(samples: list[Sample]) -> None:
    sample = samples[0]
    image = image_of(sample)
    sample_id = images.sample_id([(image.size, image.tobytes())], sample.question, sample.answer)
    assert sample_id == sample.sample_id


def test_both_task_sets_and_all_answer_kinds_occur(samples: list[Sample]) -> None:
    assert {sample.answer_kind for sample in samples} == set(AnswerKind)
    assert {sample.task_set for sample in samples} == set(TaskSet)
    assert len({sample.task for sample in samples}) >= 10


def test_every_sample_states_whether_it_requires_its_image(samples: list[Sample]) -> None:
    for sample in samples:
        # The text alone answers the family `prior`, and nothing answers `noise`.
        expected = {"prior": False, "noise": None}.get(sample.task, True)
        assert sample.requires_image is expected
        assert sample.gen_difficulty is not None
        assert 0 <= sample.gen_difficulty < 1


def test_every_gold_answer_is_graded_as_correct(samples: list[Sample]) -> None:
    for sample in samples:
        assert gold_problem(sample.answer, sample.answer_kind, sample.options) is None
        response = f"<think>{sample.rationale}</think><answer>{sample.answer}</answer>"
        assert grade(response, sample) is Verdict.correct


def test_the_image_has_as_many_shapes_as_the_answer_says() -> None:
    for index in range(40):
        sample = pool.sample(Split.pool, "count", index, seed=3)
        # 4 x 4 tiles of 28 x 28 pixels; a tile has a shape if its middle is not white.
        # Axes: row of tiles, row in a tile, column of tiles, column in a tile, color.
        tiles = np.asarray(image_of(sample)).reshape(4, 28, 4, 28, 3)
        has_shape = (tiles[:, 7:21, :, 7:21] < 250).any(axis=(1, 3, 4))
        assert has_shape.sum() == int(sample.answer)


def test_a_bar_has_the_requested_height() -> None:
    image = np.asarray(families.draw_bars([3, 8], ["red", "blue"]))
    middles = 14, 42  # columns of pixels in the middle of both bars
    heights = [(image[:, column, :] < 250).any(axis=1).sum() for column in middles]
    half_tile = 14  # pixels; the unit of heights
    assert heights == [3 * half_tile, 8 * half_tile]


def test_a_higher_difficulty_draws_more_shapes_to_count() -> None:
    from random import Random

    easy, hard = (families.count(Random(1), difficulty) for difficulty in (0.0, 0.999))
    assert (easy.answer, hard.answer) == ("1", "10")
