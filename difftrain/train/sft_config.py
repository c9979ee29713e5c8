"""Settings of SFT. Defaults are the first paper's (P, section 4) unless a line says otherwise."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from difftrain.train.lora_config import LoraConfig
from difftrain.train.trl_config import (
    TRL_KEYS,
    RateSchedule,
    nearest,
    shared_problems,
    wrong_keys,
)

GRPO_ONLY = frozenset(
    re.findall(
        r"\w+",
        "beta cache_implementation cast_lm_head_to_fp32 chat_template_kwargs delta "
        "disable_dropout ds3_gather_for_generation entropy_coef entropy_coef_delta "
        "entropy_coef_max entropy_coef_min entropy_target epsilon epsilon_high "
        "generation_batch_size generation_kwargs importance_sampling_level log_completions "
        "log_completions_hub_repo log_multimodal log_unique_prompts mask_truncated_completions "
        "max_completion_length max_tool_calling_iterations min_p multi_objective_aggregation "
        "num_completions_to_print num_generations num_generations_eval num_iterations "
        "off_policy_mask_threshold ref_model_mixup_alpha ref_model_sync_steps repetition_penalty "
        "reward_weights sapo_temperature_neg sapo_temperature_pos scale_rewards "
        "steps_per_generation sync_ref_model temperature top_entropy_quantile top_k top_p "
        "transformers_continuous_batching_config use_adaptive_entropy use_bias_correction_kl "
        "use_transformers_continuous_batching use_transformers_paged use_vllm vespo_k_neg "
        "vespo_k_pos vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode "
        "vllm_gpu_memory_utilization vllm_group_port vllm_importance_sampling_cap "
        "vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min "
        "vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_max_model_length "
        "vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port "
        "vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size",
    )
)
SFT_KEYS = (TRL_KEYS - GRPO_ONLY) | frozenset(
    re.findall(
        r"\w+",
        "activation_offloading assistant_only_loss chat_template_path completion_only_loss "
        "dataset_kwargs dataset_num_proc dataset_text_field eos_token eval_packing max_length "
        "packing packing_strategy pad_token padding_free truncation_mode",
    )
)
"""TRL's SFTConfig, as far as a test compares it with the real one."""
SFT_OWN_KEYS = frozenset(
    re.findall(
        r"\w+",
        "output_dir model_init_kwargs learning_rate lr_scheduler_type warmup_steps seed bf16 "
        "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "gradient_checkpointing save_steps save_total_limit logging_steps report_to use_cpu "
        "max_length packing padding_free completion_only_loss remove_unused_columns "
        "eval_strategy",
    )
)
"""TRL's keys that follow from settings of ours, or that would cut or mix samples."""


class Targets(StrEnum):
    """What SFT learns to say."""

    solution = "solution"
    rollouts = "rollouts"


class Dropped(StrEnum):
    """Why a sample is left out of SFT."""

    no_solution = "no_solution"
    no_right_rollout = "no_right_rollout"
    no_layout = "no_layout"
    not_right = "not_right"
    too_long = "too_long"


MEANINGS = {
    Dropped.no_solution: "the data gives no rationale (sft.targets=rollouts needs none)",
    Dropped.no_right_rollout: "the probe has no right answer to the whole picture",
    Dropped.no_layout: "no thought and answer can be told apart in it",
    Dropped.not_right: "the grader does not call it right",
    Dropped.too_long: "it is longer than sft.cutoff_tokens",
}
"""The reasons in words."""


@dataclass(kw_only=True, slots=True)
class SftConfig:
    """Supervised fine-tuning before GRPO, on the answer alone."""

    targets: Targets = Targets.solution
    """solution: the data's own rationale and answer, which shapes and mulberry alone give;
    rollouts: a right answer of the probe."""
    learning_rate: float = 1e-6
    """P: 1e-6."""
    rate_schedule: RateSchedule = RateSchedule.cosine
    """P: cosine."""
    warmup_ratio: float = 0.1
    """Share of the steps that raise the rate (P: 0.1)."""
    samples_per_step: int = 128
    """Samples in one optimizer step, over all processes (P: 4 x 4 on 8 GPUs)."""
    per_device_batch: int = 4
    """Most samples back-propagated at once on one device (P: 4)."""
    epochs: int = 5
    """Passes over the chosen samples (P: 5); not used when max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows epochs."""
    cutoff_tokens: int = 8192
    """Longer samples, pictures included, are dropped before training with their count; none is
    ever cut (P cuts at 8192)."""
    freeze_vision: bool = True
    """Leave vision tower and projector as they are (P)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_every: int = 100
    """Optimizer steps between checkpoints that a killed run continues from."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Anything else of TRL's SFTConfig, off the typed path: +sft.trl.KEY=VALUE."""

    @property
    def wants_rationale(self) -> bool:
        """Whether the data must say how each answer is found."""
        return self.targets is Targets.solution

    def uneven(self, processes: int) -> str | None:
        """Why a step cannot be shared by so many processes, with the nearest settings."""
        if self.samples_per_step % processes == 0:
            return None
        near = nearest(self.samples_per_step, lambda n: n % processes == 0)
        return (
            f"sft.samples_per_step={self.samples_per_step}: must divide by the {processes} "
            f"processes; nearest: {near}"
        )

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        yield from shared_problems(self)
        for name in ("samples_per_step", "cutoff_tokens"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        yield from wrong_keys("sft", self.trl, SFT_OWN_KEYS, SFT_KEYS)
