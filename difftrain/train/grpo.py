"""GRPO with TRL's GRPOTrainer, and workarounds for vLLM with images.

The trainer is in dynamic_sampling.py (which groups) and grpo_trainer.py (at what cost).
"""

import logging
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl.trainer.utils import RepeatSampler

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import Rollouts, VllmMode, ZeroVariance
from difftrain.grade import prepare_workers
from difftrain.grade.pool import GraderPool
from difftrain.model import chat_format, family, loading, resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import RaisedByAllRanks
from difftrain.records import Sample
from difftrain.select import prompt_history
from difftrain.select.prompt_history import PromptHistory
from difftrain.train import (
    callbacks,
    checkpointing,
    image_cache,
    param_groups,
    rewards,
    trl_args,
    vllm_rollouts,
)
from difftrain.train.dataset import TrainData, to_dataset
from difftrain.train.dynamic_sampling import (
    GROUPS,
    TOKENS,
    DeadPoolError,
    DynamicSamplingTrainer,
)
from difftrain.train.rewards import Subsets
from difftrain.train.rollout_log import RolloutLog
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)

STOPPED = "stopped.json"
"""Of a training that its samples ended: the reason, and its cost (counts and seconds)."""


class UnfitSelectionError(ConfigError, RaisedByAllRanks):
    """The settings of GRPO do not go with the selected samples."""


def build_trainer(job: TrainJob, data: TrainData, graders: GraderPool) -> Any:
    """TRL's GRPOTrainer for this data, with the reward functions of rewards.py."""
    grpo, model = job.config.grpo, job.start_model
    if problem := prompt_history.floor_problem(grpo, [sample.task for sample in data.samples]):
        raise UnfitSelectionError([problem])
    processor = job.load_processor()
    # peft_config builds a model. With ZeRO-3 it would be sharded once TRL's arguments exist.
    adapter = param_groups.peft_config("grpo", grpo.lora, model)
    family.return_lists_by_default(processor)
    encodes_together = "batch_num_images" in processor.image_processor.model_input_names
    if encodes_together and any(len(sample.images) > 1 for sample in data.samples):
        problem = "encodes several images of a prompt in a way that TRL cannot pass on"
        advice = "train on samples with one image"
        raise ConfigError([f"model.name={model.name}: its family {problem}; {advice}"])
    banned = family.banned_tokens(processor, loading.load_architecture(model))
    uses_vllm = grpo.vllm.mode is not VllmMode.none
    if uses_vllm:
        refuse_second_resize(model, data.samples)
        vllm_rollouts.refuse_tied_head(grpo.vllm.mode, model)
    subsets = Subsets([*data.samples, *data.eval_samples], data.strata)
    prefix = chat_format.thought_prefix(processor)
    reward_funcs: list[Any] = rewards.reward_functions(
        grpo, job.config.grade, subsets, graders, prefix
    )
    with vllm_rollouts.completed_arguments(model, job.folder, len(banned)):
        trainer: Any = DynamicSamplingTrainer(
            model=resolve.source(model.name),
            reward_funcs=reward_funcs,
            args=trl_args.grpo_arguments(job, banned, bool(data.eval_samples)),
            train_dataset=to_dataset(data.samples),
            eval_dataset=to_dataset(data.eval_samples) if data.eval_samples else None,
            processing_class=processor,
            peft_config=adapter,
        )
    if grpo.freeze_vision:
        param_groups.freeze_vision(trainer.model)
    trainer.grpo = grpo
    if problem := batch_problem(trainer):
        raise ConfigError([problem])
    if problem := size_problem(trainer):
        unset_hf_deepspeed_config()  # the run may go on with the checkpoint of the round before
        raise UnfitSelectionError([problem])
    if grpo.chooses_prompts:
        trainer.start_history(prompt_history_of(trainer, data), job.folder)
    trainer.shares_prompts = grpo.shares_prompts
    rows = grpo.per_device_train_batch_size
    if grpo.shares_prompts and rows < grpo.num_generations:
        logger.info(
            "grpo.per_device_train_batch_size=%d is less than a group (grpo.num_generations=%d): a "
            "prompt is computed in %d passes",
            rows,
            grpo.num_generations,
            -(-grpo.num_generations // rows),
        )
    if grpo.rollouts is Rollouts.engine and not uses_vllm:
        trainer.engine_config = model
    trainer.rollout_log = RolloutLog(job.folder, job.world.rank)
    trainer.add_callback(trainer.rollout_log)
    trainer.image_cache = image_cache.attach(trainer, job.folder / image_cache.FOLDER)
    report = job.config.report
    if job.config.report_to and report.completions and job.world.is_first:
        names = [reward.__name__ for reward in reward_funcs]
        trainer.completion_log = callbacks.CompletionLog(job.folder, report, names)
    if uses_vllm:
        vllm_rollouts.require_same_dtype(trainer.vllm_generation, model)
        vllm_rollouts.require_ban_limits(trainer.vllm_generation, len(banned))
        vllm_rollouts.reload_packed_weights(trainer.vllm_generation)
        image_token = trainer._image_token
        vllm_rollouts.pass_one_placeholder_per_image(trainer.vllm_generation, image_token)
        reset_encoder_cache_on_update(trainer)
    return trainer


def batch_problem(trainer: DynamicSamplingTrainer) -> str | None:
    """The error if batches of rollouts do not fit the settings that choose groups; else None."""
    grpo, args, group = trainer.grpo, trainer.args, trainer.num_generations
    if grpo.zero_variance is ZeroVariance.drop and trainer.aux_loss_enabled:
        rule = "does not go with the loss that balances a model's experts, which it would rescale"
        return f"grpo.zero_variance=drop: {rule}; use keep, or grpo.trl.router_aux_loss_coef=0"
    passes = args.gradient_accumulation_steps
    if grpo.zero_variance is ZeroVariance.drop and args.steps_per_generation < passes:
        rule = "needs all groups of an optimizer step in one batch of rollouts"
        advice = f"use keep, or set grpo.trl.steps_per_generation to a multiple of {passes}"
        return f"grpo.zero_variance=drop: {rule}; {advice}"
    if not grpo.chooses_prompts:
        return None
    share = args.per_device_train_batch_size * args.steps_per_generation
    if share % group:
        rule = "must be divisible by grpo.num_generations, so that it holds whole groups"
        return (
            f"grpo.trl.steps_per_generation: the {share} completions of a process {rule} ({group})"
        )
    return None


def size_problem(trainer: DynamicSamplingTrainer) -> str | None:
    """The error if there are too few samples for a batch of different prompts; else None."""
    prompts = trainer.args.generation_batch_size // trainer.num_generations
    if trainer.grpo.chooses_prompts and prompts > len(trainer.train_dataset):
        size = f"a batch of rollouts has {prompts} prompts, but there are only"
        advice = "select more strata, or set grpo.prompts_per_step lower"
        return f"select.strata: {size} {len(trainer.train_dataset)} samples; {advice}"
    return None


def prompt_history_of(trainer: DynamicSamplingTrainer, data: TrainData) -> PromptHistory:
    """The history of these samples' prompts as the probe has left it; uniform is TRL's order."""
    ids = [sample.sample_id for sample in data.samples]
    correct, incorrect = zip(*(data.answers.get(id_, (0, 0)) for id_ in ids), strict=True)
    shuffles, seed = trainer.shuffle_dataset, trainer.args.seed

    @cache
    def order_of_pass(number: int) -> list[int]:
        sampler = RepeatSampler(ids, mini_repeat_count=1, shuffle=shuffles, seed=seed)
        return [list(sampler) for _ in range(number + 1)][-1]  # each pass continues its generator

    ratios = None
    if data.failure_ratios:
        by_sample = [data.failure_ratios.get(id_, np.nan) for id_ in ids]
        ratios = np.array([np.inf if ratio is None else ratio for ratio in by_sample])
    return PromptHistory(
        grpo=trainer.grpo,
        seed=trainer.args.seed,
        sample_ids=ids,
        tasks=[sample.task for sample in data.samples],
        order_of_pass=order_of_pass,
        correct_N=np.array(correct, dtype=float),
        incorrect_N=np.array(incorrect, dtype=float),
        ease_N=ratios,
    )


def fit(job: TrainJob, data: TrainData) -> Path:
    """Train on the data; returns the checkpoint's folder (see `checkpointing.run_training`).

    Raises UnfitSelectionError, or DeadPoolError if zero-variance groups or batches are left out and
    there were no others. Then the folder holds the unchanged model. STOPPED says why.
    """
    grpo, started = job.config.grpo, time.time()
    cost = {"generations": 0, "tokens": 0}

    def train() -> tuple[Any, float, dict[str, Any]]:
        with GraderPool(grpo.reward_workers, grpo.grading_timeout_s) as graders:
            prepare_workers(graders, data.samples)
            trainer = build_trainer(job, data, graders)
            try:
                seconds = checkpointing.train(trainer, job, data.samples)
                trainer.require_live_group()
            except DeadPoolError as error:
                cost.update(rollout_counts(trainer, job.folder))
                checkpointing.save(trainer, job)
                folder = job.folder / checkpointing.CHECKPOINT
                raise DeadPoolError(
                    f"{job.title}: {error}. {folder} holds the model unchanged"
                ) from None
        counts = {
            "steps": trainer.state.global_step,
            "samples": len(data.samples),
            "eval_samples": len(data.eval_samples),
            "graders_killed": graders.num_killed,
        }
        return trainer, seconds, counts | rollout_counts(trainer, job.folder)

    try:
        return checkpointing.run_training(job, train)
    except (DeadPoolError, UnfitSelectionError) as error:
        if job.world.is_first:
            rows = callbacks.read_log(job.folder)  # their seconds include those before a resume
            seconds = max(time.time() - started, rows[-1]["seconds"] if rows else 0.0)
            content = {"reason": str(error), "counts": cost, "seconds": seconds}
            manifest.write_json(job.folder / STOPPED, content)
        raise


def rollout_counts(trainer: DynamicSamplingTrainer, folder: Path) -> dict[str, int]:
    """The numbers of generated answers and tokens of a training, refused groups included."""
    rows = [*callbacks.read_log(folder), trainer.unlogged_counts()]
    generations = trainer.num_generations * round(sum(row[GROUPS] for row in rows))
    # Logs that an older version began have no TOKENS, only the mean length of what was trained on.
    tokens = sum(
        row[TOKENS]
        if TOKENS in row
        else trainer.num_generations * row[GROUPS] * row.get("completions/mean_length", 0.0)
        for row in rows
    )
    return {"generations": generations, "tokens": round(tokens)}


def refuse_second_resize(model: ModelConfig, samples: Sequence[Sample]) -> None:
    """Raise ConfigError if vLLM would resize images again, by the model folder's own pixel limits.

    TRL does not pass our limits to vLLM, and a second resize changes the number of image tokens.
    """
    processor: Any = AutoProcessor.from_pretrained(
        resolve.source(model.name), revision=model.revision, trust_remote_code=False
    ).image_processor
    if not family.takes_area(processor):
        return  # without our limits, TRL's processor resizes as vLLM's does
    sizes = {images.png_size(png) for sample in samples for png in sample.images}
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    problems = []
    for width, height in sorted({*by_area[:1], *by_area[-1:]}):  # the smallest and the largest
        patches = processor.get_number_of_image_patches(height, width, {})
        expected = width * height // processor.patch_size**2
        if patches != expected:
            problems.append(f"{width} x {height}: {patches} patches in vLLM, {expected} in TRL")
    if problems:
        rule = f"vLLM would resize images again to {model.name}'s own pixel limits"
        advice = "set data.min_pixels and data.max_pixels within these limits"
        raise ConfigError([f"grpo.vllm.mode: {rule} ({'; '.join(problems)}); {advice}"])


def reset_encoder_cache_on_update(trainer: Any) -> None:
    """Make vLLM drop its cached image encodings after each update of its weights.

    TRL resets only the prefix cache, which is enough if the vision weights are frozen. Without a
    GPU vLLM loads the weights itself (vllm_rollouts.py); then its worker drops the encoded images,
    but its scheduler still counts on them, and would raise an error.
    """
    counts = param_groups.count_parameters(trainer.model)
    is_frozen = not any(trained for part, _, trained in counts if part in param_groups.VISION_PARTS)
    if is_frozen and torch.cuda.is_available():
        return
    generation = trainer.vllm_generation
    sync = generation.sync_weights

    def sync_weights() -> None:
        sync()
        if generation.mode == VllmMode.colocate:
            generation.llm.llm_engine.reset_encoder_cache()
        elif generation.accelerator.is_main_process:
            client = generation.vllm_client  # vLLM has this endpoint if VLLM_SERVER_DEV_MODE=1
            url = f"{client.base_url}/reset_encoder_cache"
            client.session.post(url, timeout=60).raise_for_status()

    generation.sync_weights = sync_weights
