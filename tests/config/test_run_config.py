"""The settings: their defaults, their rules, and the fingerprints that each of them is part of."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from difftrain.config import run_config
from difftrain.config.data import Source
from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.setting import hashed_settings
from difftrain.config.train import PromptSampler, SftTargets, TrainStages, ZeroVariance
from difftrain.records import Measure, Stratum


def settings_classes(node: Any) -> list[type]:
    """The dataclasses of a settings tree: that of this node and those below it."""
    values = [getattr(node, field.name) for field in fields(node)]
    return [
        type(node),
        *(cls for value in values if is_dataclass(value) for cls in settings_classes(value)),
    ]


def test_every_settings_class_has_slots_so_a_misspelt_field_raises_an_error() -> None:
    for cls in settings_classes(RunConfig()):
        assert "__slots__" in vars(cls), cls


def test_the_default_settings_break_no_rule() -> None:
    assert list(run_config.problems(RunConfig())) == []


def test_error_messages_contain_the_full_key_and_the_value() -> None:
    config = RunConfig()
    config.difficulty.pism.tau = 0
    config.difficulty.cmab.hard_min = 0.05
    with pytest.raises(ConfigError) as caught:
        run_config.require_valid(config)
    assert str(caught.value).splitlines() == [
        "bad settings:",
        "  difficulty.pism.tau=0: must lie strictly between 0 and 1",
        "  difficulty.cmab.hard_min=0.05: must be above easy_below=0.1",
    ]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_lora_adapters_in_a_frozen_vision_tower_are_refused(stage: str) -> None:
    config = RunConfig()
    settings = getattr(config, stage)
    settings.lora.rank, settings.lora.vision, settings.freeze_vision = 4, True, True
    (problem,) = run_config.problems(config)
    assert problem.startswith(f"{stage}.lora.vision=True: needs freeze_vision=false")
    settings.freeze_vision = False
    assert not list(run_config.problems(config))


def test_dropping_groups_is_refused_beside_a_loss_term_with_its_own_denominator() -> None:
    config = RunConfig()
    config.grpo.zero_variance, config.grpo.trl = ZeroVariance.drop, {"entropy_coef": 0.01}
    (problem,) = run_config.problems(config)
    assert problem == (
        "grpo.zero_variance=drop: drop does not go with grpo.trl.entropy_coef, whose term it would "
        "rescale; use keep, or grpo.dynamic_sampling=true"
    )
    config.grpo.trl = {"entropy_coef": 0.0}
    assert not list(run_config.problems(config))


def test_curriculum_needs_the_failure_ratios_of_pism() -> None:
    config = RunConfig()
    config.grpo.sampler = PromptSampler.curriculum
    assert not list(run_config.problems(config))
    config.difficulty.measure = Measure.cmab
    (problem,) = run_config.problems(config)
    assert problem.startswith("grpo.sampler=curriculum: curriculum orders by PISM's failure ratio")
    config.difficulty.extra_measures = [Measure.pism]
    assert not list(run_config.problems(config))


def test_a_prompt_may_not_be_left_out_forever() -> None:
    config = RunConfig()
    config.grpo.retest_share = 0.0
    (problem,) = run_config.problems(config)
    assert problem == "grpo.retest_share=0.0: must lie above 0 and at or below 1"


@pytest.mark.parametrize("setting", ["dynamic_sampling", "sampler"])
def test_processes_share_a_step_by_whole_groups_if_prompts_are_chosen(setting: str) -> None:
    config = RunConfig()  # 8 prompts with 8 completions
    assert config.step_problems(16) == []
    value = True if setting == "dynamic_sampling" else PromptSampler.learnable
    setattr(config.grpo, setting, value)
    assert config.step_problems(4) == []
    (problem,) = config.step_problems(16)
    assert problem == (
        f"grpo.prompts_per_step=8: with grpo.{setting}={value} it must be divisible by the number "
        "of processes (16), because each process holds whole groups; nearest: [16, 32, 48]"
    )


def sft_target_problems(
    source: Source, train_stages: TrainStages, targets: SftTargets
) -> list[str]:
    """The error messages about sft.targets for these settings."""
    config = RunConfig(train_stages=train_stages)
    config.data.source, config.sft.targets = source, targets
    return [text for text in run_config.problems(config) if text.startswith("sft.targets")]


@pytest.mark.parametrize("source", Source)
def test_sft_on_rationales_is_refused_for_data_without_rationales(source: Source) -> None:
    problems = sft_target_problems(source, TrainStages.sft_then_grpo, SftTargets.rationale)
    assert sft_target_problems(source, TrainStages.sft_then_grpo, SftTargets.rollouts) == []
    assert sft_target_problems(source, TrainStages.grpo, SftTargets.rationale) == []
    if source in (Source.shapes, Source.mulberry):
        assert problems == []
        return
    assert problems == [
        f"sft.targets=rationale: data.source={source.value} has no rationales; use rollouts"
    ]


def test_a_setting_is_part_of_the_fingerprints_that_its_field_lists() -> None:
    """hashed_settings() returns the settings of a section that are part of a stage's fingerprint.

    own=True (the default): the section is the stage's own, so fields that list no stage are in it.
    own=False: only the fields that list the stage. Without a stage: the fields of any fingerprint.
    """
    config = RunConfig()
    assert "until" not in hashed_settings(config.probe, "probe")
    assert hashed_settings(config.probe, "score", own=False).keys() == {"until", "cde_rollouts"}
    assert "lambda_a" not in hashed_settings(config.difficulty.ace, "attention", own=False)
    assert "judge_client" not in hashed_settings(config.evaluate, "evaluate")
    assert "rules" not in hashed_settings(config.evaluate, "responses")
    assert not {"output_dir", "report_to", "plan"} & hashed_settings(config).keys()


def test_the_image_gain_is_refused_with_a_server_which_returns_no_log_probabilities() -> None:
    config = RunConfig()
    config.difficulty.extra_measures = [Measure.image_gain]
    assert list(run_config.problems(config)) == []
    config.model.engine, config.model.url = EngineKind.http, "http://localhost:8000/v1"
    (problem,) = run_config.problems(config)
    assert problem.startswith("model.engine=http: image_gain needs log-probabilities")
    assert "use model.engine=hf or vllm" in problem


def test_strata_by_pass_rate_need_as_many_draws_as_a_stratum_does() -> None:
    config = RunConfig()
    config.difficulty.measure, config.probe.draws = Measure.pass_rate, 3
    (problem,) = run_config.problems(config)
    assert problem.startswith("probe.draws=3: must be at least difficulty.pass_rate.min_draws=4")
    config.difficulty.measure = Measure.pism
    assert list(run_config.problems(config)) == []


def test_a_stratum_that_so_few_draws_cannot_give_is_refused() -> None:
    config = RunConfig()
    config.difficulty.measure, config.select.strata = Measure.pass_rate, [Stratum.hard]
    assert list(run_config.problems(config)) == []  # one of ten draws correct
    config.probe.draws = 8
    (problem,) = run_config.problems(config)
    assert "with probe.draws=8 no sample is hard by its pass rate; raise probe.draws" in problem


def test_a_measure_without_strata_cannot_select() -> None:
    config = RunConfig()
    config.difficulty.measure = Measure.image_gain
    (problem,) = run_config.problems(config)
    assert problem.endswith("must be a measure with strata: pism, cmab, drm, pass_rate")


def test_a_missing_or_empty_list_of_ids_is_refused(tmp_path: Path) -> None:
    config = RunConfig()
    config.select.ids = str(tmp_path / "ids.txt")
    assert [*run_config.problems(config)] == [
        f"select.ids={tmp_path}/ids.txt: there is no such file"
    ]
    (tmp_path / "ids.txt").write_text("\n \n")
    (problem,) = run_config.problems(config)
    assert problem.endswith("the file lists no sample_id (one per line)")
