"""Settings of GRPO. Defaults are the first paper's (P, section 4) unless a line says otherwise."""

import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from difftrain.records import Arm
from difftrain.train.lora_config import LoraConfig
from difftrain.train.vllm_config import Engine, VllmConfig

TRL_VERSION = "1.16"
"""The TRL whose settings are listed below; a test compares the list with the real one."""
TRL_KEYS = frozenset(
    re.findall(
        r"\w+",
        "accelerator_config adam_beta1 adam_beta2 adam_epsilon auto_find_batch_size "
        "average_tokens_across_devices batch_eval_metrics beta bf16 bf16_full_eval "
        "cache_implementation cast_lm_head_to_fp32 chat_template_kwargs data_seed "
        "dataloader_drop_last dataloader_in_order dataloader_multiprocessing_context "
        "dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory "
        "dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb "
        "ddp_find_unused_parameters ddp_static_graph ddp_timeout debug deepspeed delta "
        "disable_dropout disable_tqdm do_eval do_predict do_train ds3_gather_for_generation "
        "enable_jit_checkpoint entropy_coef entropy_coef_delta entropy_coef_max entropy_coef_min "
        "entropy_target epsilon epsilon_high eval_accumulation_steps eval_delay "
        "eval_do_concat_batches eval_on_start eval_steps eval_strategy eval_use_gather_object "
        "fp16 fp16_full_eval fsdp fsdp_config full_determinism generation_batch_size "
        "generation_kwargs gradient_accumulation_steps gradient_checkpointing "
        "gradient_checkpointing_kwargs greater_is_better hub_always_push hub_model_id "
        "hub_private_repo hub_revision hub_strategy hub_token ignore_data_skip "
        "importance_sampling_level include_for_metrics include_num_input_tokens_seen label_names "
        "label_smoothing_factor learning_rate length_column_name liger_kernel_config "
        "load_best_model_at_end local_rank log_completions log_completions_hub_repo log_level "
        "log_level_replica log_multimodal log_on_each_node log_unique_prompts logging_first_step "
        "logging_nan_inf_filter logging_steps logging_strategy loss_type lr_scheduler_kwargs "
        "lr_scheduler_type mask_truncated_completions max_completion_length max_grad_norm "
        "max_steps max_tool_calling_iterations metric_for_best_model min_p model_init_kwargs "
        "multi_objective_aggregation neftune_noise_alpha num_completions_to_print num_generations "
        "num_generations_eval num_iterations num_train_epochs off_policy_mask_threshold optim "
        "optim_args optim_target_modules output_dir pad_to_multiple_of parallelism_config "
        "per_device_eval_batch_size per_device_train_batch_size prediction_loss_only project "
        "push_to_hub ref_model_mixup_alpha ref_model_sync_steps remove_unused_columns "
        "repetition_penalty report_to restore_callback_states_from_checkpoint "
        "resume_from_checkpoint reward_weights router_aux_loss_coef run_name sapo_temperature_neg "
        "sapo_temperature_pos save_on_each_node save_only_model save_steps save_strategy "
        "save_total_limit scale_rewards seed shuffle_dataset skip_memory_metrics "
        "steps_per_generation sync_ref_model temperature tf32 top_entropy_quantile top_k top_p "
        "torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps "
        "trackio_bucket_id trackio_space_id trackio_static_space_id train_sampling_strategy "
        "transformers_continuous_batching_config trust_remote_code use_adaptive_entropy "
        "use_bias_correction_kl use_cache use_cpu use_liger_kernel "
        "use_transformers_continuous_batching use_transformers_paged use_vllm vespo_k_neg "
        "vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode "
        "vllm_gpu_memory_utilization vllm_group_port vllm_importance_sampling_cap "
        "vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min "
        "vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_max_model_length "
        "vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port "
        "vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size warmup_steps "
        "weight_decay",
    )
)
OWN_KEYS = frozenset(
    re.findall(
        r"\w+",
        "output_dir model_init_kwargs learning_rate lr_scheduler_type warmup_steps beta "
        "num_train_epochs max_steps num_generations per_device_train_batch_size temperature "
        "gradient_accumulation_steps max_completion_length reward_weights loss_type "
        "gradient_checkpointing generation_kwargs save_steps save_total_limit logging_steps "
        "report_to seed bf16 use_cpu eval_strategy eval_steps num_generations_eval "
        "per_device_eval_batch_size use_vllm vllm_mode vllm_gpu_memory_utilization "
        "vllm_tensor_parallel_size vllm_max_model_length vllm_enable_sleep_mode "
        "vllm_server_base_url",
    )
)
"""TRL's keys that follow from settings of ours (arguments.py)."""


def refused_key(key: str) -> str | None:
    """Why this key of TRL's is never taken, or None: no secrets, nothing published."""
    if key == "hub_token":
        return "is a secret: use HF_TOKEN"
    if key == "trust_remote_code":
        return "is always off"
    if key.startswith("hub_") or key in ("push_to_hub", "log_completions_hub_repo"):
        return "is never set: a run does not publish what it makes"
    return None


def offered(own: Set[str] = OWN_KEYS, known: Set[str] = TRL_KEYS) -> list[str]:
    """TRL's keys that may be set below a stage's `trl`."""
    return sorted(key for key in known - own if refused_key(key) is None)


def wrong_keys(
    stage: str, given: dict[str, Any], own: Set[str], known: Set[str]
) -> Iterator[tuple[str, str]]:
    """Keys of a stage's `trl` that TRL does not know, or that have a setting of their own."""
    for key in given:
        if refused := refused_key(key):
            yield f"trl.{key}", refused
        elif key in own:
            yield f"trl.{key}", f"follows from a setting of its own ({stage}.*, model.*, seed)"
        elif key not in known:
            near = get_close_matches(key, offered(own, known), 1, 0.6)
            hint = f"; did you mean {stage}.trl.{near[0]}?" if near else ""
            name = {"grpo": "GRPOConfig", "sft": "SFTConfig"}[stage]
            yield f"trl.{key}", f"TRL {TRL_VERSION}'s {name} has no such key{hint}"


def nearest(number: int, fits: Callable[[int], bool]) -> list[int]:
    """The three numbers from 1 on that fit and lie nearest, smallest first."""
    found: list[int] = []
    for distance in range(4 * number + 4096):
        near = {number - distance, number + distance}
        found += [n for n in sorted(near) if n >= 1 and fits(n)]
        if len(found) >= 3:
            break
    return sorted(found[:3])


def shared_problems(stage: Any) -> Iterator[tuple[str, str]]:
    """Problems with what SFT and GRPO have in common, as (field, rule)."""
    for name in ("per_device_batch", "epochs", "save_every"):
        if getattr(stage, name) < 1:
            yield name, "must be at least 1"
    if stage.max_steps is not None and stage.max_steps < 1:
        yield "max_steps", "must be at least 1, or null to follow epochs"
    if not 0 < stage.learning_rate < 1:
        yield "learning_rate", "must lie strictly between 0 and 1"
    if not 0 <= stage.warmup_ratio < 1:
        yield "warmup_ratio", "must be at least 0 and below 1"


class Program(StrEnum):
    """The training stages of a recipe."""

    grpo = "grpo"
    sft_then_grpo = "sft_then_grpo"


STAGES = {Program.grpo: (Arm.grpo,), Program.sft_then_grpo: (Arm.sft, Arm.grpo)}
"""What each program trains, in its order; each has its settings under its own name."""


class RateSchedule(StrEnum):
    """How the learning rate goes on after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


@dataclass(kw_only=True, slots=True)
class GrpoConfig:
    """Group-relative policy optimisation."""

    learning_rate: float = 1e-6
    """P: 5e-7; its reasoning runs mostly 1e-6."""
    rate_schedule: RateSchedule = RateSchedule.linear
    """TRL's default, which the released scripts keep."""
    warmup_ratio: float = 0.01
    """Share of the steps that raise the rate (P: 0.01)."""
    group_size: int = 8
    """Answers compared with one another, G (P: 8 generations)."""
    prompts_per_step: int = 8
    """Different prompts in one optimizer step, over all processes (P: 4 x 2 on 8 GPUs / G)."""
    per_device_batch: int = 4
    """Most answers back-propagated at once on one device (P: 4)."""
    temperature: float = 1.0
    """Sampling temperature of the rollouts (P: 1.0)."""
    kl: float = 0.001
    """Weight of the KL term (P: beta 0.001)."""
    max_completion_tokens: int = 1024
    """Longest answer (P: 1024)."""
    epochs: int = 1
    """Passes over the chosen samples (P: 1); not used when max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows epochs. Arms compared at equal steps set this."""
    layout_weight: float = 0.1
    """Weight of the layout reward beside the correctness reward's 1 (V-Triune: 0.1)."""
    length_weight: float = 0.0
    """Weight of the length term: 0 for short answers, falling to -1 at max_completion_tokens
    (DAPO, Eq. 13). The papers have none; 0 leaves it out."""
    length_free: float = 0.8
    """Share of max_completion_tokens that costs nothing."""
    answer_seconds: float = 5.0
    """Wall-clock limit for grading one answer; a worker that overruns is killed and replaced."""
    reward_workers: int = 1
    """Grading processes for each training process; their number changes only the speed."""
    held_out: int = 64
    """Samples of the pool that are not trained on but asked now and then; 0 asks none."""
    held_out_every: int = 50
    """Optimizer steps between two looks at the held-out samples."""
    freeze_vision: bool = False
    """Leave vision tower and projector as they are (P: GRPO is full fine-tuning)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_every: int = 100
    """Optimizer steps between checkpoints that a killed run continues from."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    vllm: VllmConfig = field(default_factory=VllmConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Anything else of TRL's GRPOConfig, off the typed path: +grpo.trl.KEY=VALUE."""

    def uneven(self, processes: int) -> str | None:
        """Why a step cannot be shared by so many processes, with the nearest settings."""
        prompts, group = self.prompts_per_step, self.group_size
        if prompts * group % processes:
            return (
                f"grpo.prompts_per_step={prompts}: times group_size={group} must divide by the "
                f"{processes} processes; nearest: "
                f"{nearest(prompts, lambda n: n * group % processes == 0)}, or group_size "
                f"{nearest(group, lambda n: n > 1 and n * prompts % processes == 0)}"
            )
        shared = self.vllm.tensor_parallel
        if self.vllm.mode is Engine.colocate and processes % shared:
            near = nearest(shared, lambda n: n <= processes and processes % n == 0)
            return (
                f"grpo.vllm.tensor_parallel={shared}: must divide the {processes} processes; "
                f"nearest: {near}"
            )
        return None

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.group_size < 2:
            yield "group_size", "GRPO needs at least two answers to compare"
        yield from shared_problems(self)
        for name in ("prompts_per_step", "reward_workers", "held_out_every"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.max_completion_tokens < 1:
            yield "max_completion_tokens", "must be at least 1"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.kl < 0:
            yield "kl", "must not be negative"
        for name in ("layout_weight", "length_weight", "held_out"):
            if getattr(self, name) < 0:
                yield name, "must not be negative"
        if not 0 <= self.length_free < 1:
            yield "length_free", "must be at least 0 and below 1"
        if not 0 < self.answer_seconds <= 600:
            yield "answer_seconds", "must lie above 0 and at or below 600"
        yield from wrong_keys("grpo", self.trl, OWN_KEYS, TRL_KEYS)
