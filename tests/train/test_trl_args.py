"""TRL's arguments, vLLM's settings, LoRA's targets, precision, the files of launch/accelerate."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from torch import nn
from transformers import AutoProcessor, TrainerControl, TrainerState
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.config.train import SFT_KEYS, VllmMode, nearest_numbers, trl_fields
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline.coordination import World
from difftrain.records import Sample, TrainStage
from difftrain.train import grpo, param_groups, trl_args
from difftrain.train.param_groups import GradientCheck, GradientError
from difftrain.train.trl_args import TrainJob
from tests.train.two_part_model import TwoPartModel

ACCELERATE = Path(__file__).resolve().parents[2] / "launch" / "accelerate"


def job(stage: TrainStage, folder: Path, config: RunConfig, world: World | None = None) -> TrainJob:
    return TrainJob(stage, config, folder, world or World(), "test")


def test_trl_gets_the_default_settings_of_sft_and_truncates_and_packs_nothing(
    tmp_path: Path,
) -> None:
    arguments = trl_args.sft_arguments(job(TrainStage.sft, tmp_path, RunConfig(), World(0, 8)))
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.lr_scheduler_type) == (
        1e-6, 5, "cosine"
    )  # fmt: skip
    # By default 128 samples a step: 8 processes x batch size 4 x 4 passes.
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 4)
    assert arguments.max_length is None
    assert not arguments.packing
    assert not arguments.padding_free
    assert arguments.completion_only_loss


def test_the_keys_read_from_trls_source_file_are_the_fields_of_sftconfig(tmp_path: Path) -> None:
    """trl_fields() reads them from the file, because importing TRL takes seconds."""
    assert {field.name for field in fields(SFTConfig)} == trl_fields(TrainStage.sft)
    config = RunConfig()
    for key in SFT_KEYS:  # difftrain itself sets these, so Python refuses them a second time
        config.sft.trl = {key: None}
        with pytest.raises(TypeError, match="multiple values"):
            trl_args.sft_arguments(job(TrainStage.sft, tmp_path, config))


def test_vllm_settings_reach_trl_and_placeholders_stay_banned(
    tmp_path: Path,
) -> None:
    config, banned = RunConfig(), {"<|vision_start|>": 8, "<|image_pad|>": 7}
    vllm, grpo_job = config.grpo.vllm, job(TrainStage.grpo, tmp_path, config)
    for mode in (VllmMode.colocate, VllmMode.server):
        vllm.mode, vllm.server_base_url = mode, "http://somewhere:8000"
        arguments = trl_args.grpo_arguments(grpo_job, banned)
        assert arguments.use_vllm
        assert arguments.vllm_mode == mode.value
        # vLLM's SamplingParams have bad_words, but no suppress_tokens.
        assert arguments.generation_kwargs == {"bad_words": ["<|vision_start|>", "<|image_pad|>"]}
    vllm.mode = VllmMode.none
    assert not trl_args.grpo_arguments(grpo_job, banned).use_vllm


def test_trl_still_updates_vllm_by_sync_weights_and_resets_only_the_prefix_cache() -> None:
    """If this fails, reset_encoder_cache_on_update must be adapted to the new TRL."""
    assert "self.vllm_generation.sync_weights()" in inspect.getsource(GRPOTrainer)
    update = inspect.getsource(VLLMGeneration.sync_weights)
    assert "reset_prefix_cache" in update
    assert "encoder" not in update
    source = inspect.getsource(VLLMGeneration)
    attributes = ("self.llm ", "self.vllm_client ", "self.generation_kwargs")
    assert all(name in source for name in attributes)


def stub_vllm(calls: list[str]) -> SimpleNamespace:
    """A stub of TRL's vLLM backend, which needs a GPU; it appends to `calls`."""
    engine = SimpleNamespace(reset_encoder_cache=lambda: calls.append("reset"))
    return SimpleNamespace(
        mode="colocate",
        llm=SimpleNamespace(llm_engine=engine),
        sync_weights=lambda: calls.append("update"),
    )


def two_part_model() -> TwoPartModel:
    """A model with a vision tower and a language model."""
    return TwoPartModel({"visual": nn.ModuleDict({"blocks": nn.Linear(2, 2)}),
                         "language_model": nn.Linear(2, 2)})  # fmt: skip


@pytest.mark.parametrize(
    ("is_trained", "has_gpu", "expected"),
    [
        (True, True, ["update", "reset"]),
        (False, True, ["update"]),
        (False, False, ["update", "reset"]),  # vLLM's worker drops the images by itself
    ],
)
def test_vllm_drops_encoded_images_if_the_vision_tower_is_trained_or_there_is_no_gpu(
    is_trained: bool, has_gpu: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    calls: list[str] = []
    model = two_part_model()
    model["visual"].requires_grad_(is_trained)
    trainer = SimpleNamespace(model=model, vllm_generation=stub_vllm(calls))
    grpo.reset_encoder_cache_on_update(trainer)
    trainer.vllm_generation.sync_weights()
    assert calls == expected


def test_images_that_vllm_would_resize_again_are_refused(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    grpo.refuse_second_resize(ModelConfig(name="tiny"), shapes_samples)
    processor = AutoProcessor.from_pretrained(SHIPPED["tiny"])
    # In pixels, despite the names; the images have 112 x 112 = 12544.
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 6272}
    processor.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"resize images again .*112 x 112: 16 patches"):
        grpo.refuse_second_resize(ModelConfig(name=str(tmp_path)), shapes_samples)


def test_lora_adapts_the_language_model_alone_by_default() -> None:
    config = RunConfig().grpo.lora
    assert param_groups.peft_config("grpo", config, ModelConfig(name="tiny")) is None
    config.rank = 4
    peft = param_groups.peft_config("grpo", config, ModelConfig(name="tiny"))
    assert peft is not None
    assert peft.r == 4
    assert isinstance(peft.exclude_modules, str)
    assert re.fullmatch(peft.exclude_modules, "model.visual.merger.mlp.0")
    assert not re.fullmatch(peft.exclude_modules, "model.language_model.layers.0.self_attn.q_proj")
    config.targets = ["q_porj"]  # q_proj misspelled on purpose
    with pytest.raises(ConfigError, match=r"grpo.lora.targets=.*q_porj: not in this model.*q_proj"):
        param_groups.peft_config("grpo", config, ModelConfig(name="tiny"))


def test_the_error_for_a_step_that_cannot_be_shared_names_the_nearest_valid_settings() -> None:
    assert nearest_numbers(8, lambda n: n % 3 == 0) == [6, 9, 12]
    config = RunConfig()
    config.grpo.prompts_per_step, config.grpo.num_generations = 3, 6
    assert config.grpo.step_problem(4) == (
        "grpo.prompts_per_step=3: times num_generations (6), it must be divisible by the number of "
        "processes (4); nearest: [2, 4, 6], or num_generations [4, 8, 12]"
    )
    assert config.grpo.step_problem(9) is None
    assert config.sft.step_problem(6) == (
        "sft.samples_per_step=128: must be divisible by the number of processes (6); "
        "nearest: [120, 126, 132]"
    )
    config.grpo.vllm.mode, config.grpo.vllm.tensor_parallel_size = VllmMode.colocate, 4
    assert "processes (6) must be divisible by it; nearest: [2, 3, 6]" in str(
        config.grpo.step_problem(6)
    )


def test_the_summary_of_a_step_names_processes_batch_size_and_passes() -> None:
    config = RunConfig()
    assert trl_args.step_summary(config.grpo, World(0, 8)) == (
        "a step: 8 prompts x 8 completions = 8 processes x batch size 4 x 2 passes"
    )
    assert trl_args.step_summary(config.sft, World(0, 8)) == (
        "a step: 128 samples = 8 processes x batch size 4 x 4 passes"
    )


def test_a_process_with_several_gpus_trains_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise transformers would train on all four GPUs, with four times the batch size."""
    setup = GRPOConfig.__post_init__

    def set_up_with_four_gpus(self: GRPOConfig) -> None:
        setup(self)
        self._n_gpu = 4

    monkeypatch.setattr(GRPOConfig, "__post_init__", set_up_with_four_gpus)
    config = RunConfig()
    config.model.dtype = Dtype.float32
    arguments = trl_args.grpo_arguments(job(TrainStage.grpo, tmp_path, config), {})
    expected = (1, config.grpo.per_device_train_batch_size)
    assert (arguments.n_gpu, arguments.train_batch_size) == expected


def test_trained_weights_are_float32_unless_deepspeed_or_lora_keeps_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    config = RunConfig()
    assert config.model.dtype is Dtype.bfloat16
    assert trl_args.loaded_dtype(config.model, config.grpo) is Dtype.float32
    weight = torch.tensor(0.02, dtype=torch.bfloat16)
    assert weight - 1e-6 == weight  # a bfloat16 weight would not change
    config.grpo.lora.rank = 8
    assert trl_args.loaded_dtype(config.model, config.grpo) is Dtype.bfloat16
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert trl_args.loaded_dtype(config.model, config.sft) is Dtype.bfloat16


def check_first_step(model: nn.Module, frozen: tuple[str, ...], used: tuple[str, ...]) -> None:
    """Run GradientCheck on a backward pass through the modules in `used`.

    `frozen` names the parts that must not be trained.
    """
    check = GradientCheck(model, frozen, has_text_only=False)
    event = (None, TrainerState(), TrainerControl())
    check.on_train_begin(*event)
    parts = {"visual": model["visual"]["blocks"], "language_model": model["language_model"]}
    sum(parts[name](torch.ones(2)).sum() for name in used).backward()
    check.on_step_end(*event)


def test_gradients_of_the_first_step_must_reach_all_trained_parts_and_no_frozen_part() -> None:
    both, vision_parts = ("visual", "language_model"), ("vision tower", "projector")
    check_first_step(two_part_model(), frozen=(), used=both)
    with pytest.raises(GradientError, match="vision tower is trained but got no gradient"):
        check_first_step(two_part_model(), frozen=(), used=("language_model",))
    with pytest.raises(GradientError, match="vision tower must be frozen but is trained"):
        check_first_step(two_part_model(), frozen=vision_parts, used=both)
    frozen_vision = two_part_model()
    frozen_vision["visual"].requires_grad_(False)
    check_first_step(frozen_vision, frozen=vision_parts, used=both)
    broken = two_part_model()
    with torch.no_grad():
        broken["language_model"].weight.fill_(float("inf"))
    broken["visual"]["blocks"].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(GradientError, match="not finite"):
        check_first_step(broken, frozen=(), used=both)


@pytest.mark.parametrize("path", sorted(ACCELERATE.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_loads_its_config_files_and_they_match_their_names(path: Path) -> None:
    config = load_config_from_file(str(path))
    name = path.stem
    zero_stage = config.deepspeed_config.get("zero_stage") if config.deepspeed_config else None
    digit = name.removeprefix("zero")[0]
    assert zero_stage == (int(digit) if name.startswith("zero") else None)
    optimizer_device = (config.deepspeed_config or {}).get("offload_optimizer_device")
    assert (optimizer_device == "cpu") == ("offload" in name)
    # With use_cpu and without DeepSpeed, accelerate starts one process whatever the file says.
    assert config.use_cpu == (name.endswith("cpu") and zero_stage is not None)
    assert config.mixed_precision == ("no" if name.endswith("cpu") else "bf16")
