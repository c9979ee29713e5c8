"""What the settings of SFT and GRPO share: TRL's own keys, common rules, the nearest settings."""

import re
from collections.abc import Callable, Iterator, Set
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

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
    for name in ("per_device_batch", "epochs", "save_every"):
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
