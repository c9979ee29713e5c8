"""Length and dead groups by task and stratum, summed over processes."""

from collections import defaultdict

import pytest

from difftrain.records import Sample
from difftrain.train import callbacks
from difftrain.train.spread import spread_counted
from difftrain.train.watch import Groups, by_group

SIZE = 4


def correct(completions: list[str], **_: object) -> list[float]:
    return [float(text == "right") for text in completions]


def layout(completions: list[str], **_: object) -> list[float]:
    return [float(text.startswith("r")) for text in completions]


def told(
    prompts: list[tuple[Sample, list[str]]], groups: Groups, weights: tuple[float, float]
) -> dict[str, float]:
    """The metrics of one process that holds these answers, one token a letter."""
    texts = [text for _, answers in prompts for text in answers]
    ids = [sample.sample_id for sample, answers in prompts for _ in answers]
    tokens = [[1] * len(text) for text in texts]
    found: dict[str, float] = defaultdict(float)
    for reward in spread_counted(
        [by_group(correct, groups), by_group(layout, groups)], weights, groups, SIZE
    ):
        reward(
            completions=texts,
            sample_id=ids,
            completion_ids=tokens,
            log_metric=lambda name, value: found.__setitem__(name, value),
        )
    return found


def mean(*processes: dict[str, float]) -> dict[str, float]:
    """What TRL makes of the metrics of several processes."""
    return {name: sum(each[name] for each in processes) / len(processes) for name in processes[0]}


@pytest.fixture
def groups(shapes_samples: list[Sample]) -> Groups:
    """Even samples are easy, odd ones hard."""
    strata = {s.sample_id: "hard" if n % 2 else "easy" for n, s in enumerate(shapes_samples)}
    return Groups(shapes_samples, strata)


def test_a_group_is_dead_if_all_its_answers_are_paid_alike(
    shapes_samples: list[Sample], groups: Groups
) -> None:
    easy, hard, also_easy, _ = shapes_samples[:4]
    one = told([(easy, ["right"] * 4), (hard, ["right", "no", "no", "no"])], groups, (1, 0.1))
    two = told([(also_easy, ["no", "no", "no", "rather"])], groups, (1, 0.1))
    row = callbacks.summed_up(mean(one, two), processes=2)
    assert row["dead_groups/stratum/hard"] == 0.0
    assert row["dead_groups/stratum/easy"] == 0.5  # a difference in layout alone is one, too
    assert row["length/stratum/easy"] == pytest.approx((4 * 5 + 3 * 2 + 6) / 8)
    assert row["length/stratum/hard"] == pytest.approx((5 + 3 * 2) / 4)


def test_a_reward_of_weight_zero_makes_no_difference(
    shapes_samples: list[Sample], groups: Groups
) -> None:
    found = told([(shapes_samples[0], ["no", "no", "no", "rather"])], groups, (1, 0))
    assert callbacks.summed_up(found, 1)["dead_groups/stratum/easy"] == 1.0


def test_answers_without_the_rest_of_their_group_are_not_counted_as_one(
    shapes_samples: list[Sample], groups: Groups
) -> None:
    halves = [(shapes_samples[0], ["right"] * 2), (shapes_samples[2], ["right"] * 2)]
    row = callbacks.summed_up(told(halves, groups, (1, 0.1)), 1)
    assert "dead_groups/stratum/easy" not in row
    assert row["length/stratum/easy"] == 5.0


def test_a_stratum_without_an_answer_is_left_out_and_not_zero(
    shapes_samples: list[Sample], groups: Groups
) -> None:
    row = callbacks.summed_up(told([(shapes_samples[0], ["no"] * 4)], groups, (1, 0.1)), 1)
    assert not [name for name in row if name.endswith("stratum/hard")]
