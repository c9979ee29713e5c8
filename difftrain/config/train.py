"""What the settings of SFT and GRPO share: TRL's own keys, common rules, the nearest settings."""

import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from difftrain.records import TrainStage

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


class RateSchedule(StrEnum):
    """How the learning rate goes on after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


def refused_key(key: str) -> str | None:
    """Why this key of TRL's is never taken, or None: no secrets, nothing published."""
    if key == "hub_token":
        return "is a secret: use HF_TOKEN"
    if key == "trust_remote_code":
        return "is always off"
    if key.startswith("hub_") or key in ("push_to_hub", "log_completions_hub_repo"):
        return "is never set: a run does not publish what it makes"
    return None


def offered(own: Set[str], known: Set[str]) -> list[str]:
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
    for name in ("per_device_train_batch_size", "num_train_epochs", "save_steps"):
        if getattr(stage, name) < 1:
            yield name, "must be at least 1"
    if stage.max_steps is not None and stage.max_steps < 1:
        yield "max_steps", "must be at least 1, or null to follow epochs"
    if stage.lora.rank and stage.lora.vision and stage.freeze_vision:
        yield "lora.vision", "needs freeze_vision=false, for what is frozen gets no addition"
    if not 0 < stage.learning_rate < 1:
        yield "learning_rate", "must lie strictly between 0 and 1"
    if not 0 <= stage.warmup_ratio < 1:
        yield "warmup_ratio", "must be at least 0 and below 1"


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and feed-forward projections of the language model."""


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adaptation (peft). Both papers train all weights, so it is off."""

    rank: int = 0
    """Rank of the additions; 0 trains all weights."""
    alpha: float = 32.0
    """The addition counts alpha / rank times."""
    targets: list[str] = field(default_factory=lambda: list(TARGETS))
    """Last names of the modules that get an addition."""
    vision: bool = False
    """Give it to vision tower and projector too, where they have modules of these names."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.rank < 0:
            yield "rank", "must be at least 1, or 0 to train all weights"
        if not self.alpha > 0:
            yield "alpha", "must be above 0"
        if not self.targets:
            yield "targets", f"must name at least one module, such as {', '.join(TARGETS[:4])}"
        if any("head" in name for name in self.targets):
            yield "targets", "may not name the head: TRL reads its weights past the addition"


class VllmMode(StrEnum):
    """Who generates the rollouts."""

    none = "none"
    colocate = "colocate"
    server = "server"


@dataclass(kw_only=True, slots=True)
class RolloutVllmConfig:
    """How TRL asks vLLM; what it leaves open is closed in rollouts.py."""

    mode: VllmMode = VllmMode.none
    """none generates with transformers; colocate shares the training GPUs; server asks one that
    runs: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs
    --weight-transfer-config '{"backend": "nccl"}'"""
    gpu_memory_utilization: float = 0.3
    """Share of a GPU's memory that vLLM takes (colocate)."""
    tensor_parallel_size: int = 1
    """GPUs that share one copy of the model (colocate)."""
    max_model_length: int | None = None
    """Most tokens of prompt and answer together; null takes the model's own limit (colocate)."""
    enable_sleep_mode: bool = False
    """Give the memory back while weights are trained; costs a reload each step (colocate)."""
    server_base_url: str | None = None
    """Where the server listens; null is port 8000 of this machine (server)."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.gpu_memory_utilization <= 0.95:
            yield "gpu_memory_utilization", "must lie above 0 and at or below 0.95"
        if self.tensor_parallel_size < 1:
            yield "tensor_parallel_size", "must be at least 1"
        if self.max_model_length is not None and self.max_model_length < 1:
            yield "max_model_length", "must be at least 1, or null for the model's own limit"
        if self.server_base_url is not None and not self.server_base_url.startswith(
            ("http://", "https://")
        ):
            yield "server_base_url", "must start with http:// or https://"


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
    lr_scheduler_type: RateSchedule = RateSchedule.cosine
    """P: cosine."""
    warmup_ratio: float = 0.1
    """Share of the steps that raise the rate (P: 0.1)."""
    samples_per_step: int = 128
    """Samples in one optimizer step, over all processes (P: 4 x 4 on 8 GPUs)."""
    per_device_train_batch_size: int = 4
    """Most samples back-propagated at once on one device (P: 4)."""
    num_train_epochs: int = 5
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
    save_steps: int = 100
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


class TrainStages(StrEnum):
    """The training stages of a recipe."""

    grpo = "grpo"
    sft_then_grpo = "sft_then_grpo"


STAGES = {
    TrainStages.grpo: (TrainStage.grpo,),
    TrainStages.sft_then_grpo: (TrainStage.sft, TrainStage.grpo),
}
"""What each program trains, in its order; each has its settings under its own name."""


@dataclass(kw_only=True, slots=True)
class GrpoConfig:
    """Group-relative policy optimisation."""

    learning_rate: float = 1e-6
    """P: 5e-7; its reasoning runs mostly 1e-6."""
    lr_scheduler_type: RateSchedule = RateSchedule.linear
    """TRL's default, which the released scripts keep."""
    warmup_ratio: float = 0.01
    """Share of the steps that raise the rate (P: 0.01)."""
    num_generations: int = 8
    """Answers compared with one another, G (P: 8 generations)."""
    prompts_per_step: int = 8
    """Different prompts in one optimizer step, over all processes (P: 4 x 2 on 8 GPUs / G)."""
    per_device_train_batch_size: int = 4
    """Most answers back-propagated at once on one device (P: 4)."""
    temperature: float = 1.0
    """Sampling temperature of the rollouts (P: 1.0)."""
    beta: float = 0.001
    """Weight of the KL term (P: beta 0.001)."""
    max_completion_length: int = 1024
    """Longest answer (P: 1024)."""
    num_train_epochs: int = 1
    """Passes over the chosen samples (P: 1); not used when max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows epochs. Arms compared at equal steps set this."""
    format_weight: float = 0.1
    """Weight of the layout reward beside the correctness reward's 1 (V-Triune: 0.1)."""
    overlong_weight: float = 0.0
    """Weight of the length term: 0 for short answers, falling to -1 at max_completion_tokens
    (DAPO, Eq. 13). The papers have none; 0 leaves it out."""
    overlong_free_share: float = 0.8
    """Share of max_completion_tokens that costs nothing."""
    grading_timeout_s: float = 5.0
    """Wall-clock limit for grading one answer; a worker that overruns is killed and replaced."""
    reward_workers: int = 1
    """Grading processes for each training process; their number changes only the speed."""
    eval_samples: int = 64
    """Samples of the pool that are not trained on but asked now and then; 0 asks none."""
    eval_steps: int = 50
    """Optimizer steps between two looks at the held-out samples."""
    freeze_vision: bool = False
    """Leave vision tower and projector as they are (P: GRPO is full fine-tuning)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_steps: int = 100
    """Optimizer steps between checkpoints that a killed run continues from."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    vllm: RolloutVllmConfig = field(default_factory=RolloutVllmConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Anything else of TRL's GRPOConfig, off the typed path: +grpo.trl.KEY=VALUE."""

    def uneven(self, processes: int) -> str | None:
        """Why a step cannot be shared by so many processes, with the nearest settings."""
        prompts, group = self.prompts_per_step, self.num_generations
        if prompts * group % processes:
            return (
                f"grpo.prompts_per_step={prompts}: times group_size={group} must divide by the "
                f"{processes} processes; nearest: "
                f"{nearest(prompts, lambda n: n * group % processes == 0)}, or group_size "
                f"{nearest(group, lambda n: n > 1 and n * prompts % processes == 0)}"
            )
        shared = self.vllm.tensor_parallel_size
        if self.vllm.mode is VllmMode.colocate and processes % shared:
            near = nearest(shared, lambda n: n <= processes and processes % n == 0)
            return (
                f"grpo.vllm.tensor_parallel_size={shared}: must divide the {processes} processes; "
                f"nearest: {near}"
            )
        return None

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.num_generations < 2:
            yield "num_generations", "GRPO needs at least two answers to compare"
        yield from shared_problems(self)
        for name in ("prompts_per_step", "reward_workers", "eval_steps"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        if self.max_completion_length < 1:
            yield "max_completion_length", "must be at least 1"
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if self.beta < 0:
            yield "beta", "must not be negative"
        for name in ("format_weight", "overlong_weight", "eval_samples"):
            if getattr(self, name) < 0:
                yield name, "must not be negative"
        if not 0 <= self.overlong_free_share < 1:
            yield "overlong_free_share", "must be at least 0 and below 1"
        if not 0 < self.grading_timeout_s <= 600:
            yield "grading_timeout_s", "must lie above 0 and at or below 600"
        yield from wrong_keys("grpo", self.trl, OWN_KEYS, TRL_KEYS)
