"""The ten checks before training pass for the shipped model and fail for broken models.

An image is represented in the prompt by placeholder tokens, one for each feature of the vision
tower. The model must never generate such a token.
"""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.config.train import TrainStages
from difftrain.model import family
from difftrain.model.loading import LoadedModel, load
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Sample
from difftrain.train import param_groups, preflight
from difftrain.train.preflight import Candidate, CheckResult


@pytest.fixture
def candidate(shapes_samples: list[Sample], tmp_path: Path) -> Candidate:
    """The shipped model, freshly loaded so that the test may break it, with four samples."""
    min_pixels, max_pixels = 3136, 12544  # 4 to 16 image tokens of 28 x 28 pixels
    loaded = load(ModelConfig(name="tiny", dtype=Dtype.float32), min_pixels, max_pixels)
    config = RunConfig()
    stages = {"grpo": config.grpo}
    return Candidate(loaded, shapes_samples[:4], config.model, stages, tmp_path / "preflight")


def test_the_shipped_model_passes_all_ten_checks_and_is_left_unchanged(
    candidate: Candidate,
) -> None:
    before = copy.deepcopy(candidate.loaded.model.state_dict())
    results = preflight.run_checks(candidate)
    assert list(results) == list(preflight.CHECKS)
    assert len(results) == 10
    assert all(result.passed for result in results.values()), preflight.results_table(results)
    assert preflight.failure_message(results) is None
    after = candidate.loaded.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.requires_grad for parameter in candidate.loaded.model.parameters())
    assert not list(candidate.folder.iterdir())


def test_a_processor_with_another_merge_size_is_refused(candidate: Candidate) -> None:
    candidate.loaded.processor.image_processor.merge_size = 1
    result = preflight.run_checks(candidate)["placeholders equal vision features"]
    assert not result.passed
    assert "16" in result.detail  # features per image of a tower that merges 2 x 2 patches


def test_padding_on_the_right_is_refused(candidate: Candidate) -> None:
    candidate.loaded.processor.tokenizer.padding_side = "right"
    result = preflight.check_padding(candidate)
    assert (result.passed, result.detail) == (False, "padding_side is right")


def test_a_chat_template_without_images_fails_with_the_cause(candidate: Candidate) -> None:
    template = candidate.loaded.processor.chat_template
    candidate.loaded.processor.chat_template = template.replace("<|image_pad|>", "")
    result = preflight.check_template(candidate)
    assert not result.passed
    assert result.detail.startswith("0 placeholders for 1 images")
    assert not preflight.run_checks(candidate)["placeholders equal vision features"].passed


def test_a_model_that_ignores_its_images_fails(candidate: Candidate) -> None:
    part_of = family.parts(candidate.loaded.model)
    for name, parameter in candidate.loaded.model.named_parameters():
        if part_of[name] == "projector":
            torch.nn.init.zeros_(parameter)
    for check in (preflight.check_black_image, preflight.check_swapped_image):
        result = check(candidate)
        assert not result.passed
        assert result.detail.endswith("the images do not reach the model")


def test_a_placeholder_that_is_not_banned_is_named(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "placeholder_ban", lambda banned: {})
    result = preflight.check_sampling(candidate)
    assert not result.passed
    named = result.detail.removeprefix("can be sampled: ").split(", ")
    assert set(named) <= candidate.loaded.banned.keys()


def test_a_token_that_only_the_models_config_calls_a_placeholder_is_banned_too(
    candidate: Candidate,
) -> None:
    any_token_id = candidate.loaded.processor.tokenizer.convert_tokens_to_ids("7")
    candidate.loaded.model.config.video_token_id = any_token_id
    assert candidate.loaded.banned["7"] == any_token_id
    result = preflight.check_sampling(candidate)
    assert (result.passed, result.detail) == (True, "6 tokens are banned")


def test_frozen_parts_get_no_gradient_and_trained_parts_get_one(candidate: Candidate) -> None:
    candidate.stages["grpo"].freeze_vision = True
    result = preflight.check_trained_parts(candidate)
    assert result.passed
    assert result.detail == "vision tower frozen, projector frozen, language model trained"
    assert all(parameter.requires_grad for parameter in candidate.loaded.model.parameters())


def test_lora_trains_the_adapter_alone_and_the_model_is_left_unchanged(
    candidate: Candidate,
) -> None:
    model = candidate.loaded.model
    before = {name: id(module) for name, module in model.named_modules()}
    candidate.stages["grpo"].lora.rank = 4
    candidate.stages["grpo"].freeze_vision = True
    result = preflight.check_trained_parts(candidate)
    assert result.passed, result.detail
    assert result.detail.startswith(
        "vision tower frozen, projector frozen, language model by LoRA ("
    )
    assert {name: id(module) for name, module in model.named_modules()} == before
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "peft_config")


def test_both_stages_of_a_recipe_are_checked(candidate: Candidate) -> None:
    config = RunConfig()
    candidate = replace(candidate, stages={"sft": config.sft, "grpo": config.grpo})
    result = preflight.check_trained_parts(candidate)
    assert result.passed, result.detail
    assert result.detail == (
        "sft: vision tower frozen, projector frozen, language model trained; "
        "grpo: vision tower trained, projector trained, language model trained"
    )
    candidate.stages["sft"].lora.rank = 2
    candidate.stages["sft"].lora.targets = ["q_porj"]  # q_proj misspelled on purpose
    result = preflight.run_checks(candidate)["trained and frozen parts as configured"]
    assert not result.passed
    assert "sft.lora.targets" in result.detail


def test_optimizer_states_need_disk_space_only_for_trained_parameters(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = candidate.loaded.model
    total = sum(parameter.numel() for parameter in model.parameters())
    vision = sum(  # parameters that SFT freezes by default
        size
        for part, size, _ in param_groups.count_parameters(model)
        if part in param_groups.VISION_PARTS
    )
    model_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    # Three checkpoints have weights; two of them also have Adam's 8 bytes per trained parameter.
    full = preflight.checkpoint_bytes(candidate, "grpo", model_bytes)
    assert full == 3 * model_bytes + 2 * 8 * total
    both = replace(candidate, stages={**candidate.stages, "sft": RunConfig().sft})
    frozen_vision = preflight.checkpoint_bytes(both, "sft", model_bytes)
    assert frozen_vision == 3 * model_bytes + 2 * 8 * (total - vision)
    candidate.stages["grpo"].lora.rank = 2
    by_lora = preflight.checkpoint_bytes(candidate, "grpo", model_bytes)
    assert model_bytes < by_lora < 1.5 * model_bytes  # one model and two small adapters
    free = SimpleNamespace(free=by_lora)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: free)
    assert preflight.check_checkpoint(candidate).passed
    candidate.stages["grpo"].lora.rank = 0
    assert not preflight.check_checkpoint(candidate).passed


def test_preflight_runs_again_if_other_parts_are_trained() -> None:
    def folder(**changes: object) -> Path:
        """The folder of the results with these settings; grpo_rank means grpo.lora.rank."""
        config = RunConfig(train_stages=TrainStages.sft_then_grpo)
        for key, value in changes.items():
            stage, _, name = key.partition("_")
            target = getattr(config, stage)
            setattr(target.lora if name == "rank" else target, name, value)
        return RunPaths(config).preflight

    default = folder()
    assert default == folder(grpo_num_train_epochs=7)  # no other part is trained
    others = [folder(grpo_rank=4), folder(sft_rank=4), folder(sft_freeze_vision=False),
              folder(grpo_freeze_vision=True)]  # fmt: skip
    assert len({default, *others}) == 5


def test_a_part_without_a_gradient_or_frozen_against_the_settings_is_named(
    candidate: Candidate,
) -> None:
    part_of = family.parts(candidate.loaded.model)
    for name, parameter in candidate.loaded.model.named_parameters():
        if part_of[name] == "projector":
            torch.nn.init.zeros_(parameter)
    assert "vision tower gets no gradient" in preflight.check_trained_parts(candidate).detail
    for name, parameter in candidate.loaded.model.named_parameters():
        if part_of[name] == "vision tower":
            parameter.requires_grad_(False)
    assert "vision tower is not trained" in preflight.check_trained_parts(candidate).detail


def test_a_full_disk_is_reported_in_gigabytes(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: free)
    result = preflight.check_checkpoint(candidate)
    assert not result.passed
    assert "0.1 GB are needed" in result.detail  # for the checkpoints of the shipped model


def test_only_a_part_of_a_large_model_is_written_and_read_back(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "ROUND_TRIP_BYTES", 1 << 20)  # the shipped model has 12 MB
    result = preflight.check_checkpoint(candidate)
    assert result.passed
    assert result.detail.endswith("1 MB")


def test_failures_are_reported_together_with_the_table() -> None:
    results = {
        "one": CheckResult(True, "fine"),
        "two": CheckResult(False, "padding_side is right"),
    }
    message = preflight.failure_message(results)
    assert message is not None
    assert message.startswith("1 of 2 preflight checks failed:\n  two: padding_side is right")
    assert "✓  one  fine" in message


def test_an_error_that_a_library_raises_is_the_detail_of_the_failed_check(
    candidate: Candidate,
) -> None:
    broken = LoadedModel(candidate.loaded.model, SimpleNamespace(tokenizer=None))
    results = preflight.run_checks(replace(candidate, loaded=broken))
    gold = [result for name, result in results.items() if name.startswith("gold")]
    assert len(gold) == 2  # two of the ten checks are about gold answers
    assert not any(result.passed for result in gold)
    assert "AttributeError" in results["placeholders equal vision features"].detail
