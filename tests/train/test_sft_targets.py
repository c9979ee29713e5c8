"""SFT's targets: which responses become one, their format, their tokens, and what is dropped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from difftrain.config.run_config import RunConfig
from difftrain.config.train import Dropped
from difftrain.grade import extract, grade
from difftrain.model.loading import LoadedModel
from difftrain.pipeline.coordination import World
from difftrain.records import Rollout, Sample, TrainStage, Verdict, View
from difftrain.train import sft
from difftrain.train.dataset import with_images
from difftrain.train.trl_args import TrainJob


def rollout(sample: Sample, draw: int, response: str, **changes: Any) -> Rollout:
    """A response of the base model; `draw` numbers the responses to one prompt."""
    row = Rollout(
        sample_id=sample.sample_id, view=View.full_image, mask_percent=0, draw=draw, seed=draw,
        response=response, num_tokens=3, token_ids=(1, 2, 3), hit_eos=True, verdict=Verdict.correct,
    )  # fmt: skip
    return replace(row, **changes)


def test_every_rationale_becomes_a_target_with_full_reward(
    shapes_samples: list[Sample],
) -> None:
    for sample in shapes_samples:
        target = sft.from_rationale(sample)
        assert extract.has_expected_format(target)
        assert grade(target, sample) is Verdict.correct
        assert sample.rationale in target


def test_tags_within_a_rationale_do_not_break_the_format(shapes_samples: list[Sample]) -> None:
    sample = replace(shapes_samples[0], rationale="<think>first</think> then <answer>9</answer>")
    target = sft.from_rationale(sample)
    assert target == f"<think>first then 9</think><answer>{sample.answer}</answer>"


def test_a_sample_without_a_rationale_is_counted_and_reported(shapes_samples: list[Sample]) -> None:
    missing, blank = (replace(shapes_samples[0], rationale=text) for text in (None, "  "))
    targets = {
        "a": sft.from_rationale(missing),
        "b": sft.from_rationale(blank),
        "c": "a target",
    }
    assert sft.count_dropped(targets) == {"no_rationale": 2}
    assert "2 more were dropped: the data has no rationale" in sft.dropped_text({"no_rationale": 2})


def test_only_correct_responses_to_the_full_image_become_targets(
    shapes_samples: list[Sample],
) -> None:
    sample = shapes_samples[0]
    rows = [
        rollout(sample, 0, "a", verdict=Verdict.incorrect),
        rollout(sample, 1, "b", view=View.masked, mask_percent=30),
        rollout(sample, 2, "c", view=View.text_only),
        rollout(sample, 4, "d"),
        rollout(sample, 3, "e"),
    ]
    correct = sft.correct_rollouts(rows, num_draws=10)[sample.sample_id]
    assert [row.response for row in correct] == ["e", "d"]  # in the order of their draws, 3 and 4


def test_responses_that_another_run_adds_to_the_probe_change_no_target(
    shapes_samples: list[Sample],
) -> None:
    sample = shapes_samples[0]
    # A target is chosen from the correct draws below num_draws and the first correct draw.
    own = [rollout(sample, 2, "first correct")]
    with_added = [*own, *(rollout(sample, draw, f"later {draw}") for draw in range(3, 10))]
    assert sft.correct_rollouts(with_added, num_draws=0) == sft.correct_rollouts(own, num_draws=0)
    five_draws = sft.correct_rollouts(with_added, num_draws=5)[sample.sample_id]
    assert [row.draw for row in five_draws] == [2, 3, 4]


def test_the_seed_alone_decides_which_of_several_correct_responses_is_the_target(
    shapes_samples: list[Sample],
) -> None:
    texts = [f"<think>{n}</think><answer>4</answer>" for n in range(8)]
    rows = [rollout(shapes_samples[0], n, text) for n, text in enumerate(texts)]
    targets = {seed: sft.from_rollouts(rows, seed) for seed in range(20)}
    assert targets == {seed: sft.from_rollouts(rows[::-1], seed) for seed in range(20)}
    assert len(set(targets.values())) > 3  # of 8 responses, by 20 seeds
    assert sft.from_rollouts([], 1) is Dropped.no_correct_rollout


def test_a_correct_response_without_the_format_is_put_into_tags() -> None:
    assert sft.from_response("I count. <answer>\\boxed{4}</answer> done") == (
        "<think>I count.</think><answer>\\boxed{4}</answer>"
    )
    assert sft.from_response("so it is 4") is Dropped.no_format
    assert sft.from_response("<answer> </answer>") is Dropped.no_format


def collated_batch(tiny: LoadedModel, samples: list[Sample], targets: list[str]) -> Any:
    """The batch that TRL's collator makes of these samples and targets."""
    pairs = zip(samples, targets, strict=True)
    rows = [sft.trl_row(*pair, tiny.processor) for pair in pairs]
    batch = with_images(rows, samples).__getitems__(list(range(len(rows))))
    collate = DataCollatorForVisionLanguageModeling(tiny.processor, completion_only_loss=True)
    return collate(batch)


def test_token_counts_equal_the_lengths_in_a_real_batch_with_images(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    samples = shapes_samples[:6]
    targets = [str(sft.from_rationale(sample)) for sample in samples]
    lengths = collated_batch(tiny, samples, targets)["attention_mask"].sum(1).tolist()
    pairs = zip(samples, targets, strict=True)
    assert [sft.token_count(tiny.processor, *pair) for pair in pairs] == lengths


def test_the_loss_is_on_the_completion_and_its_end_token_alone(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    samples = shapes_samples[:3]
    targets = [str(sft.from_rationale(sample)) for sample in samples]
    for labels, target in zip(
        collated_batch(tiny, samples, targets)["labels"], targets, strict=True
    ):
        learned = tiny.processor.tokenizer.decode(labels[labels != -100])  # -100: no loss
        assert learned.strip() == f"{target}<|im_end|>"


@pytest.mark.parametrize("reason", list(Dropped))
def test_every_reason_to_drop_a_sample_has_a_text(reason: Dropped) -> None:
    assert sft.dropped_text({reason.value: 1}).startswith(" (1 more were dropped: ")


def test_samples_that_are_dropped_before_sft_are_logged(
    shapes_samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    good, bad = shapes_samples[:2]
    targets = {
        good.sample_id: str(sft.from_rationale(good)),
        bad.sample_id: "a wrong answer",
    }
    job = TrainJob(TrainStage.sft, RunConfig(), tmp_path, World(), title="sft")
    data = sft.prepare(job, [good, bad], targets)
    assert data.dropped == {"not_correct": 1}
    text = "SFT trains on 1 samples (1 more were dropped: the grader does not accept the target)"
    assert text in caplog.text
