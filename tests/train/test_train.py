"""Rewards, training data, batch shapes, and the settings that reach TRL's GRPO.

`Subsets` holds the training samples by id, and divides them by task and by difficulty for metrics.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from torch import nn
from trl.trainer.grpo_config import GRPOConfig

from difftrain.config.difficulty import GradeConfig, TextCredit
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.train import GRPO_KEYS, trl_fields
from difftrain.grade import STRICT
from difftrain.grade.pool import GraderPool
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import parquet
from difftrain.pipeline.coordination import World
from difftrain.records import AnswerKind, Sample, Selection, TrainStage
from difftrain.train import callbacks, param_groups, rewards, trl_args
from difftrain.train.dataset import held_out, selected, to_dataset
from difftrain.train.rewards import Subsets
from difftrain.train.trl_args import TrainJob
from tests.train.two_part_model import TwoPartModel


def grpo_job(folder: Path, config: RunConfig | None = None) -> TrainJob:
    return TrainJob(TrainStage.grpo, config or RunConfig(), folder, World(), title="test")


def correct_response(sample: Sample) -> str:
    return f"<think>so</think><answer>{sample.answer}</answer>"


def as_messages(*texts: str) -> list[list[dict[str, str]]]:
    """Completions in the form in which TRL passes them to a reward function."""
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.fixture(scope="module")
def graders() -> Iterator[GraderPool]:
    """One grading process with 20 seconds for each answer."""
    with GraderPool(1, 20.0) as pool:
        yield pool


def test_the_accuracy_reward_is_1_for_a_correct_and_0_for_an_empty_answer(
    shapes_samples: list[Sample], graders: GraderPool
) -> None:
    reward = rewards.accuracy_reward(Subsets(shapes_samples), graders, STRICT)
    ids = [sample.sample_id for sample in shapes_samples]
    assert set(
        reward(completions=as_messages(*map(correct_response, shapes_samples)), sample_id=ids)
    ) == {1.0}
    empty = ["<think></think><answer></answer>"] * len(ids)
    assert set(reward(completions=as_messages(*empty), sample_id=ids)) == {0.0}


def test_a_completion_that_is_not_graded_in_time_is_counted_and_gets_no_reward(
    shapes_samples: list[Sample],
) -> None:
    logged: dict[str, float] = {}
    box = '{"bbox_2d": [%d, 0, %d, 10], "label": "cat"}'
    # Comparing 500 boxes with 500 boxes takes half a second.
    slow = f"[{', '.join(box % (x, x + 9) for x in range(500))}]"
    samples = [
        replace(shapes_samples[0], answer_kind=AnswerKind.boxes, answer=slow),
        *shapes_samples[1:3],
    ]
    with GraderPool(1, 0.2) as pool:  # 0.2 seconds for each answer
        reward = rewards.accuracy_reward(Subsets(samples), pool, STRICT)
        ids = [sample.sample_id for sample in samples]
        texts = as_messages(*map(correct_response, samples))
        values = reward(completions=texts, sample_id=ids, log_metric=logged.__setitem__)
    assert values == [0.0, 1.0, 1.0]
    assert logged["difftrain/alarms/grader_stopped"] == 1


def test_partial_credit_is_given_only_if_the_settings_allow_it(
    shapes_samples: list[Sample], graders: GraderPool
) -> None:
    sample = replace(shapes_samples[0], answer_kind=AnswerKind.text, answer="stop sign")
    texts = as_messages("<answer>stop sigh</answer>")  # one of nine characters is wrong
    similarity = GradeConfig(text=TextCredit.similarity)
    for rules, value in ((STRICT, 0.0), (similarity, 8 / 9)):
        reward = rewards.accuracy_reward(Subsets([sample]), graders, rules)
        assert reward(completions=texts, sample_id=[sample.sample_id]) == [pytest.approx(value)]


def test_the_overlong_penalty_grows_over_the_last_fifth_of_the_token_limit() -> None:
    config = RunConfig().grpo
    assert config.overlong_free_share == 0.8
    config.max_completion_length = 100
    config.overlong_weight = 0.5  # has no effect here: TRL applies the weight later
    penalties = rewards.overlong_reward(config)(completion_ids=[[1] * n for n in (1, 80, 90, 100)])
    assert penalties == [0.0, 0.0, -0.5, -1.0]  # it falls from 0 at 80 tokens to -1 at 100


def test_every_reward_has_a_weight_and_an_overlong_penalty_of_weight_0_is_left_out(
    shapes_samples: list[Sample], graders: GraderPool
) -> None:
    config = RunConfig()
    for weight, names in ((0.0, ["accuracy", "format"]), (0.2, ["accuracy", "format", "overlong"])):
        config.grpo.overlong_weight = weight
        subsets = Subsets(shapes_samples)
        functions = rewards.reward_functions(config.grpo, STRICT, subsets, graders)
        assert [reward.__name__ for reward in functions] == names
        assert list(config.grpo.reward_weights) == names


def test_the_format_reward_depends_only_on_the_tags() -> None:
    texts = ("<think>a</think><answer>wrong</answer>", "<answer>3</answer>", "3", "")
    assert rewards.format_reward(completions=as_messages(*texts)) == [1.0, 0.0, 0.0, 0.0]


def test_the_format_reward_counts_a_tag_that_the_prompt_already_has(
    shapes_samples: list[Sample], graders: GraderPool
) -> None:
    texts = as_messages("a</think><answer>3</answer>", "<think>a</think><answer>3</answer>")
    assert rewards.format_reward(completions=texts) == [0.0, 1.0]
    assert rewards.format_reward(completions=texts, prefix="<think>") == [1.0, 0.0]
    subsets = Subsets(shapes_samples)
    functions = rewards.reward_functions(RunConfig().grpo, STRICT, subsets, graders, "<think>")
    ids = [sample.sample_id for sample in shapes_samples[:2]]
    assert functions[1](completions=texts, sample_id=ids) == [1.0, 0.0]


def test_a_row_has_text_and_images_in_separate_columns(shapes_samples: list[Sample]) -> None:
    row = to_dataset(shapes_samples[:2])[0]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert shapes_samples[0].question in row["prompt"][1]["content"]
    assert row["images"][0].size == (112, 112)
    assert row["sample_id"] == shapes_samples[0].sample_id


def test_reading_a_batch_reads_the_images_from_disk_and_decodes_each_once(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    parquet.write_all(tmp_path, shapes_samples[:3])
    rows = to_dataset(parquet.read_rows(tmp_path, Sample))
    first, second, first_again = rows.__getitems__([0, 1, 0])
    assert first["images"][0] is first_again["images"][0]
    assert first["images"][0].tobytes() != second["images"][0].tobytes()
    parquet.parts(tmp_path)[0].unlink()
    with pytest.raises(FileNotFoundError):
        rows[2]


def test_only_selected_samples_are_trained_on(shapes_samples: list[Sample]) -> None:
    selections = [
        Selection(sample_id=shapes_samples[n].sample_id, stage=TrainStage.grpo, reason="")
        for n in (4, 2)
    ]
    assert selected(shapes_samples, selections) == [shapes_samples[4], shapes_samples[2]]


def test_held_out_samples_are_the_first_by_id_that_are_not_trained_on(
    shapes_samples: list[Sample],
) -> None:
    selections = [
        Selection(sample_id=s.sample_id, stage=TrainStage.grpo, reason="")
        for s in shapes_samples[:20]
    ]
    eval_samples = held_out(shapes_samples, selections, 3)  # at most three
    assert len(eval_samples) == 3
    assert not {s.sample_id for s in eval_samples} & {row.sample_id for row in selections}
    assert eval_samples == held_out(shapes_samples[::-1], selections, 3)
    assert held_out(shapes_samples, selections, 0) == []


def test_a_copy_of_a_training_sample_is_not_held_out(shapes_samples: list[Sample]) -> None:
    trained, other = shapes_samples[:2]
    copy = replace(trained, sample_id="0" * 16, images=[bytes(png) for png in trained.images])
    same_question = replace(trained, sample_id="1" * 16, images=other.images)
    selections = [Selection(sample_id=trained.sample_id, stage=TrainStage.grpo, reason="")]
    assert held_out([trained, copy, same_question], selections, 3) == [same_question]


def test_a_step_is_prompts_per_step_times_num_generations() -> None:
    config = RunConfig()
    config.grpo.per_device_train_batch_size = 4
    # By default a step has 8 prompts with 8 completions. The shape is the batch size of a device
    # and the number of gradient accumulation steps; World(0, 8) is rank 0 of 8 processes.
    assert trl_args.batch_shape(config.grpo, World(0, 1)) == (4, 8 * 8 // 4)
    assert trl_args.batch_shape(config.grpo, World(0, 8)) == (4, 8 * 8 // 8 // 4)


def test_a_batch_size_larger_than_a_processs_share_of_the_step_is_reduced() -> None:
    config = RunConfig()
    config.grpo.per_device_train_batch_size = 64
    assert trl_args.batch_shape(config.grpo, World(0, 4)) == (8 * 8 // 4, 1)


def test_processes_that_cannot_share_a_step_are_refused() -> None:
    # The default of 8 prompts cannot be shared; 6 and 9 are the nearest numbers that can.
    with pytest.raises(ConfigError, match=r"processes \(3\); nearest: \[6, 9"):
        trl_args.batch_shape(RunConfig().grpo, World(0, 3))


def test_trl_gets_the_default_settings_of_grpo(tmp_path: Path) -> None:
    arguments = trl_args.grpo_arguments(grpo_job(tmp_path), {"<|image_pad|>": 7})
    assert (arguments.beta, arguments.num_generations, arguments.temperature) == (0.001, 8, 1.0)
    assert (arguments.max_completion_length, arguments.num_iterations) == (1024, 1)
    assert (arguments.loss_type, arguments.lr_scheduler_type) == ("grpo", "linear")
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 8 * 8
    assert arguments.generation_kwargs == {"suppress_tokens": [7]}  # the image placeholder
    assert arguments.reward_weights == [1.0, 0.1]  # accuracy, format


def test_the_keys_read_from_trls_source_file_are_the_fields_of_grpoconfig() -> None:
    """trl_fields() reads them from the file, because importing TRL takes seconds."""
    assert {field.name for field in fields(GRPOConfig)} == trl_fields(TrainStage.grpo)


def test_the_managed_keys_are_exactly_those_that_difftrain_sets(
    tmp_path: Path,
) -> None:
    """Managed keys (GRPO_KEYS) are those of TRL's config that a user may not set in grpo.trl."""
    config = RunConfig()
    config.grpo.trl = dict.fromkeys(trl_fields(TrainStage.grpo) - GRPO_KEYS.keys())
    with pytest.raises(Exception) as caught:  # noqa: PT011  (TRL chooses the type)
        trl_args.grpo_arguments(grpo_job(tmp_path, config), {})
    # "Multiple values for a keyword" is Python's error if difftrain also sets the key.
    assert "multiple values" not in str(caught.value)
    for key in GRPO_KEYS:
        config.grpo.trl = {key: None}
        with pytest.raises(TypeError, match="multiple values"):
            trl_args.grpo_arguments(grpo_job(tmp_path, config), {})


def test_trained_parameters_are_counted_by_part(tiny: LoadedModel) -> None:
    parts = {
        part: (total, trained) for part, total, trained in param_groups.count_parameters(tiny.model)
    }
    assert parts.keys() == {"vision tower", "projector", "language model"}
    assert sum(total for total, _ in parts.values()) == sum(
        parameter.numel() for parameter in tiny.model.parameters()
    )


def test_freezing_vision_leaves_only_the_language_model() -> None:
    model = TwoPartModel(  # with the module names of Qwen2.5-VL; "merger" is the projector
        {
            "visual": nn.ModuleDict({"merger": nn.Linear(2, 2), "blocks": nn.Linear(2, 2)}),
            "language_model": nn.Linear(2, 2),
        }
    )
    param_groups.freeze_vision(model)
    trained = {part for part, _, trained in param_groups.count_parameters(model) if trained}
    assert trained == {"language model"}
    assert "projector" in param_groups.parameter_table(model)


def test_a_log_is_truncated_to_the_checkpoint_that_training_resumes_from(tmp_path: Path) -> None:
    lines = [f'{{"step": {step}, "seconds": {step * 2.0}}}\n' for step in range(1, 6)]
    (tmp_path / "train_log.jsonl").write_text(
        "".join(lines) + '{"step": 6, "sec'
    )  # killed while writing
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3, 4, 5]
    assert callbacks.truncate_log(tmp_path, last_step=3) == 3 * 2.0
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3]
