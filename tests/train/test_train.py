from pathlib import Path

import pytest
from torch import nn

from difftrain import artefacts
from difftrain.model.load import Loaded
from difftrain.records import Arm, Pick, Sample
from difftrain.settings import ConfigError, RunConfig
from difftrain.train import arguments, callbacks, modules, rewards
from difftrain.train.dataset import chosen, dataset
from difftrain.world import World


def right(sample: Sample) -> str:
    return f"<think>so</think><answer>{sample.answer}</answer>"


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_the_reward_is_the_probes_grader_and_nothing_else(shapes_samples: list[Sample]) -> None:
    reward = rewards.correct(shapes_samples)
    ids = [sample.sample_id for sample in shapes_samples]
    assert set(reward(completions=said(*map(right, shapes_samples)), sample_id=ids)) == {1.0}
    nothing = ["<think></think><answer></answer>"] * len(ids)
    assert set(reward(completions=said(*nothing), sample_id=ids)) == {0.0}


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
    artefacts.write_all(tmp_path, shapes_samples[:3])
    rows = dataset(artefacts.read(tmp_path, Sample))
    first, second, again = rows.__getitems__([0, 1, 0])
    assert first["images"][0] is again["images"][0]
    assert first["images"][0].tobytes() != second["images"][0].tobytes()
    artefacts.parts(tmp_path)[0].unlink()
    with pytest.raises(FileNotFoundError):
        rows[2]


def test_only_picked_samples_are_trained_on(shapes_samples: list[Sample]) -> None:
    picks = [Pick(sample_id=shapes_samples[n].sample_id, arm=Arm.grpo, because="") for n in (4, 2)]
    assert chosen(shapes_samples, picks) == [shapes_samples[4], shapes_samples[2]]


def test_a_step_is_the_stated_prompts_times_the_group() -> None:
    config = RunConfig()
    config.grpo.per_device_batch = 4
    assert arguments.batch(config, World(0, 1)) == (4, 16)
    assert arguments.batch(config, World(0, 8)) == (4, 2)


def test_a_batch_that_is_too_large_for_many_processes_is_made_smaller() -> None:
    config = RunConfig()
    config.grpo.per_device_batch = 64
    assert arguments.batch(config, World(0, 4)) == (16, 1)


def test_processes_that_cannot_share_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must divide by the 3 processes; nearest: \[6, 9"):
        arguments.batch(RunConfig(), World(0, 3))


def test_trl_gets_the_papers_values(tmp_path: Path) -> None:
    found = arguments.arguments(RunConfig(), tmp_path, World(), {"<|image_pad|>": 7})
    assert (found.beta, found.num_generations, found.temperature) == (0.001, 8, 1.0)
    assert (found.max_completion_length, found.num_iterations) == (1024, 1)
    assert (found.loss_type, found.lr_scheduler_type) == ("grpo", "linear")
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 64
    assert found.generation_kwargs == {"suppress_tokens": [7]}
    assert found.reward_weights == [1.0, 0.1]


def test_a_key_that_trl_does_not_know_is_refused(tmp_path: Path) -> None:
    config = RunConfig()
    config.grpo.trl = {"learning_rat": 1}
    with pytest.raises(ConfigError, match=r"grpo\.trl\.learning_rat"):
        arguments.arguments(config, tmp_path, World(), {})
    config.grpo.trl = {"learning_rate": 1}
    with pytest.raises(ConfigError, match="has a setting of its own"):
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
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"step": 6, "sec')
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3, 4, 5]
    assert callbacks.truncate_log(tmp_path, 3) == 6.0
    assert [row["step"] for row in callbacks.read_log(tmp_path)] == [1, 2, 3]
