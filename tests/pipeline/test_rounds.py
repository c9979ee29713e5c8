"""Rounds (rounds=N): settings and folders of each round, and when a round cannot train."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from difftrain.config import run_config
from difftrain.config.difficulty import SelectConfig
from difftrain.config.model import EngineKind
from difftrain.config.run_config import RunConfig
from difftrain.config.train import PromptSampler, TrainStages
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths, round_paths
from difftrain.recipes import difficulty, rounds
from difftrain.records import Arm, Measure, Score, Stratum, TrainStage
from difftrain.train.grpo import STOPPED


def config_with(number: int, max_steps: int | None = None) -> RunConfig:
    config = RunConfig(rounds=number)
    config.grpo.max_steps = max_steps
    return config


def test_with_one_round_settings_and_folders_are_as_without_the_setting(tmp_path: Path) -> None:
    config = RunConfig(output_dir=str(tmp_path))
    assert config.of_round(1) is config
    (only,) = round_paths(config, trained=True)
    assert only == RunPaths(config, trained=True)
    assert only.policy == only.model


def test_rounds_share_the_steps_and_the_first_ones_get_what_does_not_divide() -> None:
    config = config_with(3, max_steps=20)
    assert [config.of_round(number).grpo.max_steps for number in (1, 2, 3)] == [7, 7, 6]
    assert config.grpo.max_steps == 20
    assert config_with(3).of_round(2).grpo.max_steps is None


def test_the_first_round_has_the_seed_of_the_run_and_later_ones_have_their_own() -> None:
    config = config_with(3)
    seeds = [config.of_round(number).seed for number in (1, 2, 3)]
    assert seeds[0] == config.seed
    assert len({*seeds}) == 3
    assert seeds == [config.of_round(number).seed for number in (1, 2, 3)]


def test_only_the_first_round_has_sft() -> None:
    config = replace(config_with(2), train_stages=TrainStages.sft_then_grpo)
    config.select = SelectConfig(strata=[Stratum.hard], sft_strata=[Stratum.medium])
    first, second = round_paths(config)
    assert first.config.stages == (TrainStage.sft, TrainStage.grpo)
    assert second.config.stages == (TrainStage.grpo,)
    assert list(run_config.problems(second.config)) == []


def test_a_later_round_follows_from_the_training_before_it_and_no_earlier_stage_does() -> None:
    config = config_with(2)
    first, second = round_paths(config)
    other = replace(config, grpo=replace(config.grpo, learning_rate=3e-6))
    other_first, other_second = round_paths(other)
    assert other_first.probe == first.probe
    for folder in ("probe", "attention", "score"):
        assert getattr(other_second, folder) != getattr(second, folder)
        assert getattr(second, folder) != getattr(first, folder)
    assert second.policy == first.grpo(Arm.tuned).name
    assert second.data == first.data
    assert second.evaluation(Arm.base) == first.evaluation(Arm.base)
    assert second.evaluation(Arm.tuned) != first.evaluation(Arm.tuned)
    assert second.preflight == first.preflight


def test_each_arm_goes_on_from_its_own_checkpoint() -> None:
    first, second = round_paths(config_with(2))
    again = RunPaths(second.config, previous=None)
    assert second.grpo(Arm.tuned) != again.grpo(Arm.tuned)
    assert second.grpo(Arm.control) != second.grpo(Arm.tuned)
    # The selections of both arms rest on the scores of the tuned checkpoint.
    assert second.score == replace(second).score
    assert second.selections(Arm.control)[0] == first.selection(Arm.control)
    assert len(second.selections(Arm.tuned)) == 2


def test_more_rounds_share_the_first_round_if_its_training_is_equal() -> None:
    two, three = round_paths(config_with(2, 20)), round_paths(config_with(3, 30))
    assert [paths.grpo(Arm.tuned) for paths in two] == [
        paths.grpo(Arm.tuned) for paths in three[:2]
    ]
    assert two[-1].run != three[-1].run


def test_rounds_without_a_step_for_each_or_with_a_server_are_refused() -> None:
    (problem,) = run_config.problems(config_with(3, max_steps=2))
    assert problem.startswith("rounds=3: must be at most grpo.max_steps=2")
    config = config_with(2)
    config.model.engine, config.model.url = EngineKind.http, "http://localhost:8000/v1"
    (problem,) = run_config.problems(config)
    assert problem.startswith("rounds=2: later rounds score with trained weights")
    assert list(run_config.problems(config_with(3, max_steps=3))) == []


def write_scores(paths: RunPaths, strata: list[Stratum]) -> None:
    scores = [
        Score(sample_id=f"s{i}", measure=Measure.pism, value=0.0, stratum=stratum)
        for i, stratum in enumerate(strata)
    ]
    parquet.write_all(paths.score, scores)
    manifest.write_manifest(
        paths.score, settings=asdict(paths.config), inputs={}, seconds=0.0, counts={}
    )


def test_a_round_with_too_few_samples_ends_the_run_with_the_round_before(tmp_path: Path) -> None:
    config = replace(config_with(3), output_dir=str(tmp_path))
    config.grpo.prompts_per_step = 3
    all_rounds = round_paths(config)
    second = all_rounds[1]
    write_scores(second, [Stratum.hard] * 2 + [Stratum.easy] * 4)
    reason = rounds.stop_reason(second, [Arm.tuned])
    assert reason is not None
    assert reason.startswith("select.strata leaves 2 samples, but a step needs 3")
    assert "easy 4" in reason
    assert rounds.trained_rounds(all_rounds, [Arm.tuned]) == (all_rounds[:1], reason)
    assert not second.selection(Arm.tuned).exists()  # every rank decides without writing


def test_a_round_with_enough_samples_trains(tmp_path: Path) -> None:
    config = replace(config_with(2), output_dir=str(tmp_path))
    config.grpo.prompts_per_step = 3
    all_rounds = round_paths(config)
    write_scores(all_rounds[1], [Stratum.hard] * 3)
    assert rounds.stop_reason(all_rounds[1], [Arm.tuned]) is None
    assert rounds.trained_rounds(all_rounds, [Arm.tuned]) == (all_rounds, None)


def test_the_report_of_a_run_whose_later_round_is_unfinished_names_the_command(
    tmp_path: Path,
) -> None:
    all_rounds = round_paths(replace(config_with(2), output_dir=str(tmp_path)))
    with pytest.raises(parquet.MissingArtifact, match=r"launch/train\.py"):
        rounds.trained_rounds(all_rounds, [Arm.tuned])


def scored_second_round(tmp_path: Path, **grpo: Any) -> RunPaths:
    """A second round that has been scored; the first one's checkpoint is the base model."""
    config = replace(config_with(2), output_dir=str(tmp_path))
    config.data.num_samples = 8
    config.select.strata = [Stratum.hard]
    config.grpo = replace(
        config.grpo, prompts_per_step=2, num_generations=4, per_device_train_batch_size=8,
        max_completion_length=1, max_rounds=3, eval_samples=0, gradient_checkpointing=False, **grpo,
    )  # fmt: skip
    config.model.dtype = "float32"
    first, second = round_paths(config)
    samples = difficulty.load_samples(config, first, World())
    scores = [
        Score(sample_id=row.sample_id, measure=Measure.pism, value=0.0, stratum=Stratum.hard)
        for row in samples
    ]
    parquet.write_all(second.score, scores)
    for folder in (second.probe, second.score):
        folder.mkdir(parents=True, exist_ok=True)
        manifest.write_manifest(folder, settings={}, inputs={}, seconds=0.0, counts={})
    shutil.copytree(resolve.source(config.model.name), first.grpo(Arm.tuned) / "checkpoint")
    return second


def test_a_round_whose_groups_are_all_dead_ends_the_run_and_is_not_tried_again(
    tmp_path: Path,
) -> None:
    # With one token no answer can be complete, so all rewards are 0.
    second_round, arms = scored_second_round(tmp_path, dynamic_sampling=True), [Arm.tuned]
    assert rounds.stop_reason(second_round, arms) is None
    reason = rounds.train_arms(second_round, World(), arms)
    assert reason is not None
    assert "no group had unequal rewards" in reason
    assert rounds.stop_reason(second_round, arms) == reason
    assert second_round.previous is not None
    all_rounds = [second_round.previous, second_round]
    assert rounds.trained_rounds(all_rounds, arms) == (all_rounds[:1], reason)
    (path,) = rounds.unused_trainings(second_round, arms).values()
    assert manifest.read_json(path)["counts"] == {"generations": 8 * 4, "tokens": 8 * 4}


def test_a_round_whose_tasks_cannot_meet_the_floor_ends_the_run(tmp_path: Path) -> None:
    settings = {"sampler": PromptSampler.learnable, "task_floor": 0.9}
    second_round = scored_second_round(tmp_path, **settings)
    reason = rounds.train_arms(second_round, World(), [Arm.tuned])
    assert reason is not None
    assert "grpo.task_floor=0.9: " in reason
    assert rounds.stop_reason(second_round, [Arm.tuned]) == reason


def test_a_round_counts_only_if_all_arms_have_trained(tmp_path: Path) -> None:
    all_rounds = round_paths(replace(config_with(2), output_dir=str(tmp_path)))
    second = all_rounds[1]
    write_scores(second, [Stratum.hard] * 64)
    for arm in (Arm.tuned, Arm.control):
        second.grpo(arm).mkdir(parents=True)
    counts = {"generations": 8, "tokens": 80}
    manifest.write_manifest(
        second.grpo(Arm.tuned), settings={}, inputs={}, seconds=1.0, counts=counts
    )
    content = {"reason": "all dead", "counts": counts, "seconds": 2.0}
    manifest.write_json(second.grpo(Arm.control) / STOPPED, content)
    assert rounds.trained_rounds(all_rounds, [Arm.tuned]) == (all_rounds, None)
    arms = [Arm.tuned, Arm.control]
    assert rounds.trained_rounds(all_rounds, arms) == (all_rounds[:1], "all dead")
    unused = rounds.unused_trainings(second, arms)
    assert [manifest.read_json(path)["seconds"] for path in unused.values()] == [1.0, 2.0]


def test_a_measure_that_a_run_does_not_use_changes_none_of_its_folders() -> None:
    before, config = RunPaths(RunConfig()), RunConfig()
    config.difficulty.section(Measure.pass_rate).medium_min = 0.2
    after = RunPaths(config)
    assert (after.score, after.run) == (before.score, before.run)
    extra = [Measure.pass_rate, Measure.image_gain]
    measured = replace(config, difficulty=replace(config.difficulty, extra_measures=extra))
    assert RunPaths(measured).probe == before.probe
    assert RunPaths(measured).score != before.score
    section = replace(config.difficulty.section(Measure.image_gain), target="rationale")
    other = replace(measured.difficulty, image_gain=section)  # pyright: ignore[reportCallIssue]
    changed = RunPaths(replace(measured, difficulty=other))
    assert changed.likelihood != RunPaths(measured).likelihood
    assert changed.probe == before.probe
