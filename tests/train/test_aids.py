"""vLLM's keywords, LoRA's targets, the batch algebra, precision, the files of launch/accelerate."""

import inspect
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
from difftrain.config.train import SFT_KEYS, SFT_OWN_KEYS, VllmMode, nearest
from difftrain.model.locate import SHIPPED
from difftrain.pipeline.coordination import World
from difftrain.records import Sample
from difftrain.train import arguments, lora, rollouts
from difftrain.train.learning import FirstGradients, NotAsConfigured

ACCELERATE = Path(__file__).resolve().parents[2] / "launch" / "accelerate"


def test_sft_gets_the_papers_values_and_nothing_is_cut_or_packed(tmp_path: Path) -> None:
    found = arguments.sft_arguments(RunConfig(), tmp_path, World(0, 8))
    assert (found.learning_rate, found.num_train_epochs, found.lr_scheduler_type) == (
        1e-6, 5, "cosine"
    )  # fmt: skip
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (4, 4)
    assert found.max_length is None
    assert not found.packing
    assert not found.padding_free
    assert found.completion_only_loss


def test_the_list_of_sfts_keys_is_that_of_the_installed_trl(tmp_path: Path) -> None:
    assert {field.name for field in fields(SFTConfig)} == SFT_KEYS
    config = RunConfig()
    for key in SFT_OWN_KEYS:
        config.sft.trl = {key: None}
        with pytest.raises(TypeError, match="multiple values"):
            arguments.sft_arguments(config, tmp_path, World())


def test_what_vllm_is_told_are_keywords_of_this_trl_and_placeholders_stay_banned(
    tmp_path: Path,
) -> None:
    config, known = RunConfig(), {"<|image_pad|>": 7, "<|vision_start|>": 8}
    for mode in (VllmMode.colocate, VllmMode.server):
        config.grpo.vllm.mode, config.grpo.vllm.url = mode, "http://somewhere:8000"
        found = arguments.arguments(config, tmp_path, World(), known)
        assert found.use_vllm
        assert found.vllm_mode == mode.value
        # SamplingParams has bad_words and no suppress_tokens.
        assert found.generation_kwargs == {"bad_words": ["<|vision_start|>", "<|image_pad|>"]}
    assert arguments.by_vllm(config.grpo).keys() <= {field.name for field in fields(GRPOConfig)}
    config.grpo.vllm.mode = VllmMode.none
    assert not arguments.arguments(config, tmp_path, World(), known).use_vllm


def test_trl_updates_vllm_where_ours_listens_and_still_leaves_the_pictures_cached() -> None:
    assert "self.vllm_generation.sync_weights()" in inspect.getsource(GRPOTrainer)
    update = inspect.getsource(VLLMGeneration.sync_weights)
    assert "reset_prefix_cache" in update
    assert "encoder" not in update
    asked = inspect.getsource(VLLMGeneration)
    held = ("self.llm ", "self.vllm_client ", "self.generation_kwargs")
    assert all(name in asked for name in held)


def vllm_of(calls: list[str]) -> SimpleNamespace:
    """What TRL's backend shows of vLLM, which does not run without a GPU."""
    engine = SimpleNamespace(reset_encoder_cache=lambda: calls.append("forget"))
    return SimpleNamespace(
        mode="colocate",
        llm=SimpleNamespace(llm_engine=engine),
        sync_weights=lambda: calls.append("update"),
    )


def two_parts() -> nn.ModuleDict:
    return nn.ModuleDict({"visual": nn.ModuleDict({"blocks": nn.Linear(2, 2)}),
                          "language_model": nn.Linear(2, 2)})  # fmt: skip


def test_vllm_forgets_encoded_pictures_only_where_the_vision_tower_learns() -> None:
    for trained, told in ((True, ["update", "forget"]), (False, ["update"])):
        calls: list[str] = []
        model = two_parts()
        model["visual"].requires_grad_(trained)
        trainer = SimpleNamespace(model=model, vllm_generation=vllm_of(calls))
        rollouts.keep_fresh(trainer)
        trainer.vllm_generation.sync_weights()
        assert calls == told


def test_pictures_that_vllm_would_resize_again_are_refused(
    shapes_samples: list[Sample], tmp_path: Path
) -> None:
    assert rollouts.resized(ModelConfig(name="tiny"), shapes_samples) == []
    processor = AutoProcessor.from_pretrained(SHIPPED["tiny"])
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 6272}
    processor.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"resize pictures once more .*112 x 112: 16 patches"):
        rollouts.refuse_second_resize(ModelConfig(name=str(tmp_path)), shapes_samples)


def test_lora_takes_the_language_model_alone_unless_told_otherwise() -> None:
    config = RunConfig().grpo.lora
    assert lora.peft_config("grpo", config, ModelConfig(name="tiny")) is None
    config.rank = 4
    told = lora.peft_config("grpo", config, ModelConfig(name="tiny"))
    assert told is not None
    assert (told.r, told.exclude_modules) == (4, lora.VISION)
    config.targets = ["q_porj"]
    with pytest.raises(ConfigError, match=r"grpo.lora.targets=.*q_porj: not in this model.*q_proj"):
        lora.peft_config("grpo", config, ModelConfig(name="tiny"))


def test_the_nearest_valid_settings_are_told() -> None:
    assert nearest(8, lambda n: n % 3 == 0) == [6, 9, 12]
    config = RunConfig()
    config.grpo.prompts_per_step, config.grpo.num_generations = 3, 6
    assert config.grpo.uneven(4) == (
        "grpo.prompts_per_step=3: times group_size=6 must divide by the 4 processes; nearest: "
        "[2, 4, 6], or group_size [4, 8, 12]"
    )
    assert config.grpo.uneven(9) is None
    assert config.sft.uneven(6) == (
        "sft.samples_per_step=128: must divide by the 6 processes; nearest: [120, 126, 132]"
    )
    config.grpo.vllm.mode, config.grpo.vllm.tensor_parallel = VllmMode.colocate, 4
    assert "must divide the 6 processes; nearest: [2, 3, 6]" in str(config.grpo.uneven(6))


def test_a_step_is_told_as_its_algebra() -> None:
    config = RunConfig()
    assert arguments.algebra(config.grpo, World(0, 8)) == (
        "a step: 8 prompts x 8 answers = 8 processes x 4 at once x 2 passes"
    )
    assert arguments.algebra(config.sft, World(0, 8)) == (
        "a step: 128 samples = 8 processes x 4 at once x 4 passes"
    )


def test_a_process_that_sees_several_gpus_trains_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers would have it for one process and four GPUs: four batches at once."""
    setup = GRPOConfig.__post_init__

    def sees_four(self: GRPOConfig) -> None:
        setup(self)
        self._n_gpu = 4

    monkeypatch.setattr(GRPOConfig, "__post_init__", sees_four)
    config = RunConfig()
    config.model.dtype = Dtype.float32
    told = arguments.arguments(config, tmp_path, World(), {})
    assert (told.n_gpu, told.train_batch_size) == (1, config.grpo.per_device_train_batch_size)


def test_trained_weights_are_float32_unless_deepspeed_or_lora_keeps_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    config = RunConfig()
    assert config.model.dtype is Dtype.bfloat16
    assert arguments.loaded_dtype(config, config.grpo) is Dtype.float32
    weight = torch.tensor(0.02, dtype=torch.bfloat16)
    assert weight - 1e-6 == weight
    config.grpo.lora.rank = 8
    assert arguments.loaded_dtype(config, config.grpo) is Dtype.bfloat16
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert arguments.loaded_dtype(config, config.sft) is Dtype.bfloat16


def first_step(model: nn.Module, frozen: tuple[str, ...], use: tuple[str, ...]) -> None:
    """One backward pass through some parts, watched."""
    watch = FirstGradients(model, frozen, blind=False)
    told = (None, TrainerState(), TrainerControl())
    watch.on_train_begin(*told)
    parts = {"visual": model["visual"]["blocks"], "language_model": model["language_model"]}
    sum(parts[name](torch.ones(2)).sum() for name in use).backward()
    watch.on_step_end(*told)


def test_gradients_of_the_first_step_must_reach_what_is_trained_and_nothing_frozen() -> None:
    first_step(two_parts(), (), ("visual", "language_model"))
    with pytest.raises(NotAsConfigured, match="vision tower is trained but got no gradient"):
        first_step(two_parts(), (), ("language_model",))
    with pytest.raises(NotAsConfigured, match="vision tower is frozen but trained"):
        first_step(two_parts(), ("vision tower", "projector"), ("visual", "language_model"))
    still = two_parts()
    still["visual"].requires_grad_(False)
    first_step(still, ("vision tower", "projector"), ("visual", "language_model"))
    broken = two_parts()
    with torch.no_grad():
        broken["language_model"].weight.fill_(float("inf"))
    broken["visual"]["blocks"].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NotAsConfigured, match="not finite"):
        first_step(broken, (), ("visual", "language_model"))


@pytest.mark.parametrize("path", sorted(ACCELERATE.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_for_accelerate_are_read_by_it_and_say_what_their_names_say(path: Path) -> None:
    found = load_config_from_file(str(path))
    name = path.stem
    zero = found.deepspeed_config.get("zero_stage") if found.deepspeed_config else None
    assert zero == (int(name[4]) if name.startswith("zero") else None)
    offloaded = (found.deepspeed_config or {}).get("offload_optimizer_device")
    assert (offloaded == "cpu") == ("offload" in name)
    assert found.use_cpu == name.endswith("cpu")
    assert found.mixed_precision == ("no" if name.endswith("cpu") else "bf16")
