"""Which prompts GRPO asks next, and which groups count as dead (zero variance). No torch."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from difftrain.config.train import GrpoConfig, PromptSampler
from difftrain.select.prompt_history import (
    PromptHistory,
    ask_probability,
    floor_problem,
    learnability,
    mirrored_j_weights,
    zero_variance,
)

SAMPLERS = list(PromptSampler)
CHOOSING = [sampler for sampler in PromptSampler if sampler is not PromptSampler.uniform]
nan = float("nan")


def history(
    sampler: PromptSampler,
    size: int = 20,
    tasks: str = "a",
    answers: list[tuple[int, int]] | None = None,
    **settings: Any,
) -> PromptHistory:
    """A history of `size` samples whose tasks repeat a pattern of letters."""
    correct, incorrect = zip(*(answers or [(0, 0)] * size), strict=True)
    return PromptHistory(
        grpo=GrpoConfig(sampler=sampler, **settings),
        seed=3,
        sample_ids=[f"sample {n}" for n in range(size)],
        tasks=[tasks[n % len(tasks)] for n in range(size)],
        order_of_pass=lambda number: np.random.default_rng(number).permutation(size).tolist(),
        correct_N=np.array(correct, dtype=float),
        incorrect_N=np.array(incorrect, dtype=float),
        ease_N=np.linspace(0, 0.9, size),
    )


def test_a_group_is_dead_if_all_completions_have_the_same_weighted_reward() -> None:
    weights = np.array([1.0, 0.1])  # accuracy, format
    groups = np.array([
        [[1, 1], [1, 1], [1, 1]],  # all right
        [[0, 0], [0, 0], [0, 0]],  # all wrong
        [[1, 1], [0, 1], [1, 1]],
        [[1, 1], [1, 0], [1, 1]],  # a difference in format alone gives a gradient
        [[0.3, 0], [0.3, 0], [0.3, 0]],  # equal partial credit, although it is not 0 or 1
    ])  # fmt: skip
    assert zero_variance(groups, weights).tolist() == [True, True, False, False, True]
    # With weight 0 the format does not count.
    assert zero_variance(groups[3:4], np.array([1.0, 0.0])).tolist() == [True]


def test_rewards_are_equal_up_to_the_rounding_of_their_sum() -> None:
    weights = np.array([1.0, 0.1], dtype=np.float32)
    groups = np.array([[[1.0, 0.0], [0.9, 1.0]]], dtype=np.float32)  # 1.0 and 0.9 + 0.1
    assert zero_variance(groups, weights).tolist() == [True]
    assert zero_variance(groups, weights, each_reward=True).tolist() == [False]
    assert zero_variance(np.array([[[0.5], [0.5 + 1e-4]]]), np.ones(1)).tolist() == [False]


def test_completions_without_any_reward_do_not_make_a_group_live() -> None:
    groups = np.array([[[nan, nan], [1, nan], [1, nan]], [[nan, nan], [nan, nan], [nan, nan]],
                       [[1, nan], [0, nan], [nan, nan]]])  # fmt: skip
    for each_reward in (False, True):
        assert zero_variance(groups, np.ones(2), each_reward).tolist() == [True, True, False]


def test_a_posterior_starts_from_the_probes_answers_and_old_answers_decay() -> None:
    prompts = history(PromptSampler.learnable, 2, answers=[(3, 1), (0, 0)], history_decay=0.5)
    assert prompts.pass_rate_N.tolist() == [(1 + 3) / (2 + 4), 0.5]
    row = prompts.record(0, [1, 0, 0, 0], is_dead=False)
    assert row["expected"] == (1 + 3) / (2 + 4)
    assert (row["correct"], row["incorrect"]) == (0.5 * 3 + 1, 0.5 * 1 + 3)
    assert prompts.evidence_N.tolist() == [0.5 * 4 + 4, 0]
    assert prompts.record(1, [0.25, 0.25], is_dead=True)["correct"] == 0.5  # partial credit


def test_learnability_is_largest_for_a_pass_rate_of_one_half() -> None:
    assert learnability(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 0.25, 0.0]


def test_learnable_asks_the_samples_that_are_solved_half_the_time() -> None:
    answers = [(100, 0)] * 8 + [(50, 50)] * 4 + [(0, 100)] * 8
    prompts = history(PromptSampler.learnable, answers=answers, retest_share=1e-9)
    assert sorted(prompts.next(4, set())) == [8, 9, 10, 11]


def test_a_prompt_with_dead_groups_is_asked_with_a_falling_probability_that_has_a_floor() -> None:
    probabilities = ask_probability(np.array([0, 1, 2, 10]), at_least=0.1)
    assert probabilities.tolist() == [1.0, 0.5, 0.25, 0.1]


def test_skip_dead_asks_live_prompts_more_often_and_no_prompt_twice_in_a_batch() -> None:
    prompts = history(PromptSampler.skip_dead)
    counts = Counter[int]()
    for _ in range(200):
        batch = prompts.next(5, set())
        assert len(set(batch)) == 5
        for index in batch:
            counts[index] += 1
            prompts.record(index, [0, 0], is_dead=index < 10)
    live, dead = [sum(counts[n] for n in part) for part in (range(10, 20), range(10))]
    assert 4 < live / dead < 20  # about one in ten turns of a dead prompt is sampled
    assert min(counts[n] for n in range(20)) > 0


def test_a_live_group_ends_the_row_of_dead_ones() -> None:
    prompts = history(PromptSampler.skip_dead, 2)
    for is_dead, in_a_row in ((True, 1), (True, 2), (False, 0)):
        prompts.record(1, [1, 1], is_dead)
        assert prompts.dead_in_a_row_N[1] == in_a_row


def test_curriculum_goes_from_easy_to_hard_and_reaches_each_sample() -> None:
    prompts = history(PromptSampler.curriculum, retest_share=1e-9)
    batches = [prompts.next(4, set(), progress=(step + 0.5) / 5) for step in range(5)]
    assert [sorted(batch) for batch in batches] == [
        [16, 17, 18, 19], [12, 13, 14, 15], [8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3],
    ]  # fmt: skip


def test_curriculum_begins_with_samples_that_never_fail() -> None:
    prompts = history(PromptSampler.curriculum, 4, retest_share=1e-9)
    prompts.ease_N = np.array([0.2, np.inf, np.nan, 0.5])  # NaN: unknown, in the middle
    assert prompts.next(1, set(), progress=0.0) == [1]
    assert prompts.next(1, set(), progress=1.0) == [0]


def test_mirrored_j_asks_hard_samples_most_whatever_the_pool() -> None:
    pass_rate_N = np.repeat([0.05, 0.45, 0.95], [5, 5, 90])  # nearly all are easy
    weights = mirrored_j_weights(pass_rate_N)
    by_rate = [weights[pass_rate_N == rate].sum() for rate in (0.05, 0.45, 0.95)]
    assert by_rate == pytest.approx([0.95**2, 0.55**2, 0.05**2])
    answers = [(0, 50)] * 5 + [(50, 0)] * 15
    prompts = history(PromptSampler.mirrored_j, answers=answers, retest_share=1e-9)
    counts = Counter(index for _ in range(200) for index in prompts.next(1, set()))
    assert sum(counts[n] for n in range(5)) > 150


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sample_is_left_out_forever(sampler: PromptSampler) -> None:
    answers = [(0, 1000)] * 10 + [(500, 500)] * 10
    prompts = history(sampler, answers=answers)
    sampled: set[int] = set()
    for step in range(200):
        for index in prompts.next(4, set(), progress=step / 200):
            sampled.add(index)
            prompts.record(index, [0, 0] if index < 10 else [1, 0], is_dead=index < 10)
    assert sampled == set(range(20))
    assert prompts.all_sampled


@pytest.mark.parametrize("sampler", CHOOSING)
def test_each_task_gets_its_floor_of_the_asked_prompts(sampler: PromptSampler) -> None:
    # One sample in ten is of task b, and all of them are unsolved.
    answers = [(0, 1000) if n % 10 == 9 else (500, 500) for n in range(40)]
    prompts = history(sampler, 40, "a" * 9 + "b", answers, task_floor=0.25)
    tasks = Counter[str]()
    for step in range(50):
        for index in prompts.next(4, set(), progress=step / 50):
            tasks[prompts.tasks[index]] += 1
            prompts.record(index, [0, 0], is_dead=prompts.tasks[index] == "b")
    assert tasks.total() == 200
    assert tasks["b"] >= 0.25 * 200 - 1


def test_uniform_is_the_given_order_one_pass_after_the_other() -> None:
    prompts = history(PromptSampler.uniform, 6)
    sampled = [index for count in (4, 2, 6) for index in prompts.next(count, set())]
    assert sampled == prompts.order_of_pass(0) + prompts.order_of_pass(1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sample_comes_twice_in_a_batch_of_several_rounds(sampler: PromptSampler) -> None:
    """Five samples in three rounds with a carried one: batches go over the end of a pass."""
    prompts = history(sampler, 7)
    carried: set[int] = set()
    for _ in range(60):
        taken = set(carried)
        batch = [*carried]
        for count in (2, 1, 2):
            batch += prompts.next(count, taken)
        assert len(set(batch)) == len(batch)
        carried = {batch[-1]}


def test_a_postponed_sample_loses_no_turn() -> None:
    prompts = history(PromptSampler.uniform, 7)
    counts = Counter[int]()
    for step in range(70):
        counts.update(prompts.next(4, set()))
        assert max(counts.values()) - min(counts[n] for n in range(7)) <= 2, step
    assert sorted(counts.values()) == [40] * 7


def test_a_batch_larger_than_the_pool_asks_samples_again() -> None:
    for sampler in SAMPLERS:
        assert sorted(history(sampler, 3).next(6, set())) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_history_asks_the_same_prompts(sampler: PromptSampler) -> None:
    def ask(prompts: PromptHistory, steps: range) -> list[int]:
        sampled = []
        for step in steps:
            batch = prompts.next(3, set(), progress=step / 20)
            for index in batch:
                prompts.record(index, [index % 2, 1], is_dead=index % 2 == 1)
            sampled += batch
        return sampled

    undisturbed, killed = history(sampler, tasks="aab"), history(sampler, tasks="aab")
    expected = ask(undisturbed, range(20))
    first = ask(killed, range(8))
    resumed = history(sampler, tasks="aab")
    resumed.load_state(json.loads(json.dumps(killed.state())))
    assert first + ask(resumed, range(8, 20)) == expected
    assert json.dumps(resumed.state()) == json.dumps(undisturbed.state())


def test_a_floor_that_cannot_be_met_is_refused_with_numbers() -> None:
    tasks = ["count"] * 5 + ["color"] * 5 + ["sum"]
    grpo = GrpoConfig(sampler=PromptSampler.learnable, prompts_per_step=8)
    assert floor_problem(grpo, tasks) is None
    grpo.task_floor = 0.4
    assert floor_problem(grpo, tasks) == (
        "grpo.task_floor=0.4: 3 tasks would need 120% of the prompts; set it to at most 0.3333"
    )
    grpo.task_floor = 0.3
    assert floor_problem(grpo, tasks) == (
        "grpo.task_floor=0.3: task sum would need 2.4 of the 8 prompts that a step may ask, but "
        "has 1 samples; set it to at most 0.125"
    )
    grpo.task_floor = 0.1  # 0.8 of 8 prompts, but 4 of the 40 that refill may ask
    assert floor_problem(grpo, tasks) is None
    grpo.dynamic_sampling, grpo.max_rounds = True, 4
    assert "would need 4.0 of the 40 prompts that a step may ask" in str(floor_problem(grpo, tasks))
    grpo.sampler = PromptSampler.uniform
    assert floor_problem(grpo, tasks) is None
