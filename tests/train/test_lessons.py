from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from difftrain.config.run_config import RunConfig
from difftrain.grade import extract, grade
from difftrain.model.load import Loaded
from difftrain.pipeline.coordination import World
from difftrain.records import Rollout, Sample, Verdict, View
from difftrain.train import lessons, sft
from difftrain.train.dataset import with_pictures
from difftrain.train.lessons import Dropped


def said(sample: Sample, draw: int, response: str, **other: Any) -> Rollout:
    answer = Rollout(
        sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=draw, seed=draw,
        response=response, num_tokens=3, token_ids=(1, 2, 3), hit_eos=True, verdict=Verdict.correct,
    )  # fmt: skip
    return replace(answer, **other)


def test_every_solution_becomes_what_both_rewards_pay_in_full(
    shapes_samples: list[Sample],
) -> None:
    for sample in shapes_samples:
        target = lessons.from_solution(sample)
        assert extract.has_expected_format(target)
        assert grade(target, sample) is Verdict.correct
        assert sample.rationale in target


def test_tags_within_a_rationale_do_not_break_the_layout(shapes_samples: list[Sample]) -> None:
    sample = replace(shapes_samples[0], rationale="<think>first</think> then <answer>9</answer>")
    target = lessons.from_solution(sample)
    assert target == f"<think>first then 9</think><answer>{sample.answer}</answer>"


def test_a_sample_without_a_rationale_is_counted_and_told(shapes_samples: list[Sample]) -> None:
    bare, blank = (replace(shapes_samples[0], rationale=text) for text in (None, "  "))
    found = {"a": lessons.from_solution(bare), "b": lessons.from_solution(blank), "c": "fine"}
    assert lessons.counted(found) == {"no_solution": 2}
    assert "2 more were dropped: the data gives no rationale" in lessons.told({"no_solution": 2})


def test_only_right_answers_to_the_whole_picture_are_taken(shapes_samples: list[Sample]) -> None:
    sample = shapes_samples[0]
    rows = [
        said(sample, 0, "a", verdict=Verdict.incorrect),
        said(sample, 1, "b", view=View.masked, mask_percent=30),
        said(sample, 2, "c", view=View.text_only),
        said(sample, 4, "d"),
        said(sample, 3, "e"),
    ]
    assert [row.response for row in lessons.right_rollouts(rows, 10)[sample.sample_id]] == [
        "e",
        "d",
    ]


def test_a_probe_that_has_grown_for_another_run_changes_no_target(
    shapes_samples: list[Sample],
) -> None:
    sample = shapes_samples[0]
    few = [said(sample, 2, "first right")]
    grown = [*few, *(said(sample, draw, f"later {draw}") for draw in range(3, 10))]
    assert lessons.right_rollouts(grown, 0) == lessons.right_rollouts(few, 0)
    assert len(lessons.right_rollouts(grown, 5)[sample.sample_id]) == 3


def test_which_of_several_right_answers_is_taught_goes_by_seed(
    shapes_samples: list[Sample],
) -> None:
    texts = [f"<think>{n}</think><answer>4</answer>" for n in range(8)]
    rows = [said(shapes_samples[0], n, text) for n, text in enumerate(texts)]
    taught = {seed: lessons.from_rollouts(rows, seed) for seed in range(20)}
    assert taught == {seed: lessons.from_rollouts(rows[::-1], seed) for seed in range(20)}
    assert len(set(taught.values())) > 3
    assert lessons.from_rollouts([], 1) is Dropped.no_right_rollout


def test_a_right_answer_that_is_not_laid_out_is_put_into_its_tags() -> None:
    assert lessons.from_response("I count. <answer>\\boxed{4}</answer> done") == (
        "<think>I count.</think><answer>\\boxed{4}</answer>"
    )
    assert lessons.from_response("so it is 4") is Dropped.no_layout
    assert lessons.from_response("<answer> </answer>") is Dropped.no_layout


def collated(tiny: Loaded, samples: list[Sample], targets: list[str]) -> Any:
    rows = [lessons.conversation(*pair) for pair in zip(samples, targets, strict=True)]
    batch = with_pictures(rows, samples).__getitems__(list(range(len(rows))))
    collate = DataCollatorForVisionLanguageModeling(tiny.processor, completion_only_loss=True)
    return collate(batch)


def test_lengths_are_those_of_the_real_batch_pictures_included(
    tiny: Loaded, shapes_samples: list[Sample]
) -> None:
    few = shapes_samples[:6]
    targets = [str(lessons.from_solution(each)) for each in few]
    real = collated(tiny, few, targets)["attention_mask"].sum(1).tolist()
    told = [lessons.length(tiny.processor, *pair) for pair in zip(few, targets, strict=True)]
    assert told == real


def test_the_loss_is_on_the_answer_and_its_end_alone(
    tiny: Loaded, shapes_samples: list[Sample]
) -> None:
    few = shapes_samples[:3]
    targets = [str(lessons.from_solution(each)) for each in few]
    for labels, target in zip(collated(tiny, few, targets)["labels"], targets, strict=True):
        taught = tiny.processor.tokenizer.decode(labels[labels != -100])
        assert taught.strip() == f"{target}<|im_end|>"


@pytest.mark.parametrize("word", list(Dropped))
def test_every_reason_has_words(word: Dropped) -> None:
    assert lessons.told({word.value: 1}).startswith(" (1 more were dropped: ")


def test_what_is_dropped_before_sft_is_told_in_a_line(
    shapes_samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = shapes_samples[:2]
    targets = {good.sample_id: str(lessons.from_solution(good)), bad.sample_id: "a wrong answer"}
    learned = sft.prepared(RunConfig(), [good, bad], targets, tmp_path, World())
    assert learned.dropped == {"not_right": 1}
    told = "SFT learns from 1 samples (1 more were dropped: the grader does not call it right)"
    assert told in capsys.readouterr().out
