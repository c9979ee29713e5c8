"""Eight ticks for the shipped model, and for each check a model or setting that it refuses."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.config.train import TrainStages
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.model.load import Loaded, load
from difftrain.pipeline.paths import Places
from difftrain.recipes.preflight import folder_of
from difftrain.records import Sample
from difftrain.train import modules, preflight, sight, ticks
from difftrain.train.sight import Subject


@pytest.fixture
def subject(shapes_samples: list[Sample], tmp_path: Path) -> Subject:
    """A model of this test's own, which it may break."""
    loaded = load(ModelConfig(name="tiny", dtype=Dtype.float32), 3136, 12544)
    return Subject(loaded, shapes_samples[:4], RunConfig(), tmp_path / "preflight")


def test_the_shipped_model_gets_all_eight_ticks_and_is_left_as_it_was(subject: Subject) -> None:
    before = copy.deepcopy(subject.loaded.model.state_dict())
    found = preflight.ticks(subject)
    assert [tick.name for tick in found] == list(preflight.CHECKS)
    assert len(found) == 8
    assert all(tick.passed for tick in found), ticks.table(found)
    assert ticks.held_up(found) is None
    after = subject.loaded.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(each.requires_grad for each in subject.loaded.model.parameters())
    assert not list(subject.folder.iterdir())


def test_a_processor_with_another_merge_size_is_refused(subject: Subject) -> None:
    subject.loaded.processor.image_processor.merge_size = 1
    tick = preflight.ticks(subject)[0]
    assert not tick.passed
    assert "16" in tick.told


def test_padding_on_the_right_is_refused(subject: Subject) -> None:
    subject.loaded.processor.tokenizer.padding_side = "right"
    tick = sight.padding(subject)
    assert (tick.passed, tick.told) == (False, "padding_side is right")


def test_a_chat_template_without_pictures_is_refused_with_the_cause(subject: Subject) -> None:
    whole = subject.loaded.processor.chat_template
    subject.loaded.processor.chat_template = whole.replace("<|image_pad|>", "")
    tick = sight.template(subject)
    assert not tick.passed
    assert tick.told.startswith("0 places for 1 pictures")
    assert not preflight.ticks(subject)[0].passed


def test_a_model_that_does_not_see_its_pictures_is_refused(subject: Subject) -> None:
    for name, parameter in subject.loaded.model.named_parameters():
        if modules.part_of(name) == "projector":
            torch.nn.init.zeros_(parameter)
    for check in (sight.blacked_out, sight.swapped):
        tick = check(subject)
        assert not tick.passed
        assert tick.told.endswith("the pictures do not reach the model")


def test_a_placeholder_that_is_not_banned_is_named(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "banned", lambda known: {})
    tick = preflight.sampling(subject)
    assert not tick.passed
    assert tick.told.removeprefix("can be sampled: ") in PLACEHOLDERS


def test_a_placeholder_of_the_models_own_is_banned_too_or_named(subject: Subject) -> None:
    word = subject.loaded.processor.tokenizer.convert_tokens_to_ids("7")
    subject.loaded.model.config.video_token_id = word
    tick = preflight.sampling(subject)
    assert (tick.passed, tick.told) == (False, "can be sampled: 7")


def test_frozen_parts_are_frozen_and_trained_parts_learn(subject: Subject) -> None:
    subject.config.grpo.freeze_vision = True
    tick = preflight.trained_modules(subject)
    assert tick.passed
    assert tick.told == "vision tower frozen, projector frozen, language model trained"
    assert all(each.requires_grad for each in subject.loaded.model.parameters())


def test_of_lora_the_additions_alone_are_trained_and_the_model_is_left_as_it_was(
    subject: Subject,
) -> None:
    model = subject.loaded.model
    before = {name: id(each) for name, each in model.named_modules()}
    subject.config.grpo.lora.rank = 4
    subject.config.grpo.freeze_vision = True
    tick = preflight.trained_modules(subject)
    assert tick.passed, tick.told
    assert tick.told.startswith("vision tower frozen, projector frozen, language model by LoRA (")
    assert {name: id(each) for name, each in model.named_modules()} == before
    assert all(each.requires_grad for each in model.parameters())
    assert not hasattr(model, "peft_config")


def test_both_stages_of_a_row_are_looked_at(subject: Subject) -> None:
    subject.config.train_stages = TrainStages.sft_then_grpo
    tick = preflight.trained_modules(subject)
    assert tick.passed, tick.told
    assert tick.told == (
        "sft: vision tower frozen, projector frozen, language model trained; "
        "grpo: vision tower trained, projector trained, language model trained"
    )
    subject.config.sft.lora.rank = 2
    subject.config.sft.lora.targets = ["q_porj"]
    (tick,) = [each for each in preflight.ticks(subject) if each.name.startswith("trained")]
    assert not tick.passed
    assert "sft.lora.targets" in tick.told


def test_space_is_asked_for_what_is_trained_alone(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = subject.loaded.model
    whole = sum(each.numel() for each in model.parameters())
    tower = sum(
        number for part, number, _ in modules.counted(model) if part in modules.VISION_PARTS
    )
    size = sum(each.nbytes for each in model.state_dict().values())
    assert preflight.space(subject, "grpo", size) == 3 * size + 16 * whole
    assert preflight.space(subject, "sft", size) == 3 * size + 16 * (whole - tower)
    subject.config.grpo.lora.rank = 2
    by_lora = preflight.space(subject, "grpo", size)
    assert size < by_lora < 1.5 * size
    free = SimpleNamespace(free=by_lora)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: free)
    assert preflight.checkpoint(subject).passed
    subject.config.grpo.lora.rank = 0
    assert not preflight.checkpoint(subject).passed


def test_other_parts_to_train_are_looked_at_again() -> None:
    def folder(**changes: object) -> Path:
        config = RunConfig(train_stages=TrainStages.sft_then_grpo)
        for key, value in changes.items():
            stage, _, name = key.partition("_")
            target = getattr(config, stage)
            setattr(target.lora if name == "rank" else target, name, value)
        return folder_of(config, Places(config))

    own = folder()
    assert own == folder(grpo_epochs=7)
    others = [folder(grpo_rank=4), folder(sft_rank=4), folder(sft_freeze_vision=False),
              folder(grpo_freeze_vision=True)]  # fmt: skip
    assert len({own, *others}) == 5


def test_a_part_that_gets_no_gradient_or_is_frozen_by_itself_is_named(subject: Subject) -> None:
    for name, parameter in subject.loaded.model.named_parameters():
        if modules.part_of(name) == "projector":
            torch.nn.init.zeros_(parameter)
    assert "vision tower gets no gradient" in preflight.trained_modules(subject).told
    for name, parameter in subject.loaded.model.named_parameters():
        if modules.part_of(name) == "vision tower":
            parameter.requires_grad_(False)
    assert "vision tower is not trained" in preflight.trained_modules(subject).told


def test_a_full_disk_is_told_in_gigabytes(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: free)
    tick = preflight.checkpoint(subject)
    assert not tick.passed
    assert "0.1 GB are needed" in tick.told


def test_of_a_model_too_large_for_a_minute_a_part_is_written(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "WHOLE_BYTES", 1 << 20)
    tick = preflight.checkpoint(subject)
    assert tick.passed
    assert tick.told.endswith("1 MB")


def test_failures_are_told_together_with_the_table() -> None:
    found = [ticks.Tick("one", True, "fine"), ticks.Tick("two", False, "padding_side is right")]
    told = ticks.held_up(found)
    assert told is not None
    assert told.startswith("1 of 2 preflight checks failed:\n  two: padding_side is right")
    assert "✓  one  fine" in told


def test_what_a_library_raises_is_the_cause_of_its_check(subject: Subject) -> None:
    broken = Loaded(subject.loaded.model, SimpleNamespace(tokenizer=None))
    found = preflight.ticks(Subject(broken, subject.samples, subject.config, subject.folder))
    assert not any(tick.passed for tick in found if tick.name.startswith("gold"))
    assert "AttributeError" in found[0].told
