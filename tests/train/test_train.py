import os
import signal
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

import pytest
from torch import nn
from trl.trainer.grpo_config import GRPOConfig

from difftrain.config.grade import GradeConfig, TextCredit
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.train import OWN_KEYS, TRL_KEYS, TRL_VERSION
from difftrain.grade import STRICT
from difftrain.grade.workers import Workers
from difftrain.model.load import Loaded
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.records import AnswerKind, Sample, Selection, TrainStage
from difftrain.train import arguments, callbacks, modules, rewards
from difftrain.train.dataset import chosen, dataset, left_over
from difftrain.train.watch import Groups


def right(sample: Sample) -> str:
    return f"<think>so</think><answer>{sample.answer}</answer>"


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1, 20.0) as pool:
        yield pool


def test_the_reward_is_the_probes_grader_and_nothing_else(
    shapes_samples: list[Sample], workers: Workers
) -> None:
    reward = rewards.correct(Groups(shapes_samples), workers, STRICT)
    ids = [sample.sample_id for sample in shapes_samples]
    assert set(reward(completions=said(*map(right, shapes_samples)), sample_id=ids)) == {1.0}
    nothing = ["<think></think><answer></answer>"] * len(ids)
    assert set(reward(completions=said(*nothing), sample_id=ids)) == {0.0}


def test_an_answer_that_is_not_graded_in_time_is_counted_and_paid_nothing(
    shapes_samples: list[Sample],
) -> None:
    told: dict[str, float] = {}
    with Workers(1, 1.0) as pool:
        reward = rewards.correct(Groups(shapes_samples), pool, STRICT)
        ids = [sample.sample_id for sample in shapes_samples[:3]]
        texts = said(*map(right, shapes_samples[:3]))
        reward(completions=texts, sample_id=ids)
        os.kill(pool.posts[0].child.pid, signal.SIGSTOP)
        paid = reward(completions=texts, sample_id=ids, log_metric=told.__setitem__)
    assert paid == [0.0, 1.0, 1.0]
    assert told["difftrain/alarms/grader_stopped"] == 1


def test_a_part_of_the_way_is_paid_only_where_the_settings_mean_it(
    shapes_samples: list[Sample], workers: Workers
) -> None:
    sample = replace(shapes_samples[0], answer_kind=AnswerKind.text, answer="stop sign")
    texts = said("<answer>stop sigh</answer>")
    for rules, value in ((STRICT, 0.0), (GradeConfig(text=TextCredit.similarity), 8 / 9)):
        reward = rewards.correct(Groups([sample]), workers, rules)
        assert reward(completions=texts, sample_id=[sample.sample_id]) == [pytest.approx(value)]


def test_the_length_term_charges_only_the_last_fifth_before_the_limit() -> None:
    config = RunConfig().grpo
    config.max_completion_tokens, config.length_weight = 100, 0.5
    charged = rewards.length(config)(completion_ids=[[1] * n for n in (1, 80, 90, 100)])
    assert charged == [0.0, 0.0, -0.5, -1.0]


def test_every_reward_has_its_weight_and_a_length_term_of_none_is_left_out(
    shapes_samples: list[Sample], workers: Workers
) -> None:
    config = RunConfig()
    for weight, names in ((0.0, ["correct", "layout"]), (0.2, ["correct", "layout", "length"])):
        config.grpo.length_weight = weight
        paid = rewards.rewards(config.grpo, STRICT, Groups(shapes_samples), workers)
        assert [each.__name__ for each in paid] == names
        assert [name for name, _ in arguments.weights(config)] == names


def test_the_layout_reward_pays_for_tags_alone() -> None:
    texts = ("<think>a</think><answer>wrong</answer>", "<answer>3</answer>", "3", "")
    assert rewards.layout(completions=said(*texts)) == [1.0, 0.0, 0.0, 0.0]


def test_a_row_holds_words_and_picture_apart(shapes_samples: list[Sample]) -> None:
    row = dataset(shapes_samples[:2])[0]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert shapes_samples[0].question in row["prompt"][1]["content"]
    assert row["images"][0].size == (112, 112)
    assert row["sample_id"] == shapes_samples[0].sample_id


def test_pictures_are_read_from_disk_when_a_batch_is(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    parquet.write_all(tmp_path, shapes_samples[:3])
    rows = dataset(parquet.read(tmp_path, Sample))
    first, second, again = rows.__getitems__([0, 1, 0])
    assert first["images"][0] is again["images"][0]
    assert first["images"][0].tobytes() != second["images"][0].tobytes()
    parquet.parts(tmp_path)[0].unlink()
    with pytest.raises(FileNotFoundError):
        rows[2]


def test_only_picked_samples_are_trained_on(shapes_samples: list[Sample]) -> None:
    picks = [
        Selection(sample_id=shapes_samples[n].sample_id, stage=TrainStage.grpo, reason="")
        for n in (4, 2)
    ]
    assert chosen(shapes_samples, picks) == [shapes_samples[4], shapes_samples[2]]


def test_held_out_samples_are_the_first_by_content_that_are_not_trained_on(
    shapes_samples: list[Sample],
) -> None:
    picks = [
        Selection(sample_id=s.sample_id, stage=TrainStage.grpo, reason="")
        for s in shapes_samples[:20]
    ]
    held_out = left_over(shapes_samples, picks, 3)
    assert len(held_out) == 3
    assert not {s.sample_id for s in held_out} & {pick.sample_id for pick in picks}
    assert held_out == left_over(shapes_samples[::-1], picks, 3)
    assert left_over(shapes_samples, picks, 0) == []


def test_a_copy_of_a_training_sample_is_not_held_out(shapes_samples: list[Sample]) -> None:
    trained, other = shapes_samples[:2]
    copy = replace(trained, sample_id="0" * 16, images=[bytes(png) for png in trained.images])
    asked_alike = replace(trained, sample_id="1" * 16, images=other.images)
    picks = [Selection(sample_id=trained.sample_id, stage=TrainStage.grpo, reason="")]
    assert left_over([trained, copy, asked_alike], picks, 3) == [asked_alike]


def test_a_step_is_the_stated_prompts_times_the_group() -> None:
    config = RunConfig()
    config.grpo.per_device_train_batch_size = 4
    assert arguments.batch(config.grpo, World(0, 1)) == (4, 16)
    assert arguments.batch(config.grpo, World(0, 8)) == (4, 2)


def test_a_batch_that_is_too_large_for_many_processes_is_made_smaller() -> None:
    config = RunConfig()
    config.grpo.per_device_train_batch_size = 64
    assert arguments.batch(config.grpo, World(0, 4)) == (16, 1)


def test_processes_that_cannot_share_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must divide by the 3 processes; nearest: \[6, 9"):
        arguments.batch(RunConfig().grpo, World(0, 3))


def test_trl_gets_the_papers_values(tmp_path: Path) -> None:
    found = arguments.arguments(RunConfig(), tmp_path, World(), {"<|image_pad|>": 7})
    assert (found.beta, found.num_generations, found.temperature) == (0.001, 8, 1.0)
    assert (found.max_completion_length, found.num_iterations) == (1024, 1)
    assert (found.loss_type, found.lr_scheduler_type) == ("grpo", "linear")
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 64
    assert found.generation_kwargs == {"suppress_tokens": [7]}
    assert found.reward_weights == [1.0, 0.1]


def test_the_list_of_trls_keys_is_that_of_the_installed_trl() -> None:
    assert version("trl").startswith(TRL_VERSION)
    assert {field.name for field in fields(GRPOConfig)} == TRL_KEYS


def test_the_keys_that_follow_from_our_settings_are_exactly_those_that_are_refused(
    tmp_path: Path,
) -> None:
    config = RunConfig()
    config.grpo.trl = dict.fromkeys(TRL_KEYS - OWN_KEYS)
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever TRL says to all keys at None)
        arguments.arguments(config, tmp_path, World(), {})
    assert "multiple values" not in str(caught.value)
    for key in OWN_KEYS:
        config.grpo.trl = {key: None}
        with pytest.raises(TypeError, match="multiple values"):
            arguments.arguments(config, tmp_path, World(), {})


def test_trained_parameters_are_counted_by_module(tiny: Loaded) -> None:
    parts = {part: (total, trained) for part, total, trained in modules.counted(tiny.model)}
    assert parts.keys() == {"vision tower", "projector", "language model"}
    assert sum(total for total, _ in parts.values()) == sum(
        parameter.numel() for parameter in tiny.model.parameters()
    )


def test_freezing_vision_leaves_only_the_language_model() -> None:
    model = nn.ModuleDict(
        {
            "visual": nn.ModuleDict({"merger": nn.Linear(2, 2), "blocks": nn.Linear(2, 2)}),
            "language_model": nn.Linear(2, 2),
        }
    )
    modules.freeze_vision(model)
    trained = {part for part, _, trained in modules.counted(model) if trained}
    assert trained == {"language model"}
    assert "projector" in modules.table(model)


def test_a_log_is_cut_back_to_the_checkpoint_that_training_continues_from(tmp_path: Path) -> None:
    lines = [f'{{"step": {step}, "seconds": {step * 2.0}}}\n' for step in range(1, 6)]
    (tmp_path / "train_log.jsonl").write_text("".join(lines) + '{"step": 6, "sec')
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3, 4, 5]
    assert callbacks.truncate_log(tmp_path, 3) == 6.0
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3]
