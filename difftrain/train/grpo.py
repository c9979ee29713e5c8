"""GRPO with TRL's GRPOTrainer (see grpo_trainer.py), and workarounds for vLLM with images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import Rollouts, VllmMode
from difftrain.grade import prepare_workers
from difftrain.grade.pool import GraderPool
from difftrain.model import chat_format, family, loading, resolve
from difftrain.records import Sample
from difftrain.train import callbacks, checkpointing, image_cache, param_groups, rewards, trl_args
from difftrain.train.dataset import TrainData, to_dataset
from difftrain.train.grpo_trainer import SharedPromptTrainer
from difftrain.train.rewards import Subsets
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)


def build_trainer(job: TrainJob, data: TrainData, graders: GraderPool) -> Any:
    """TRL's GRPOTrainer for this data, with the reward functions of rewards.py."""
    grpo, model = job.config.grpo, job.start_model
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
    subsets = Subsets([*data.samples, *data.eval_samples], data.strata)
    prefix = chat_format.thought_prefix(processor)
    reward_funcs: list[Any] = rewards.reward_functions(
        grpo, job.config.grade, subsets, graders, prefix
    )
    trainer: Any = SharedPromptTrainer(
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
    trainer.image_cache = image_cache.attach(trainer, job.folder / image_cache.FOLDER)
    if uses_vllm:
        reset_encoder_cache_on_update(trainer)
    return trainer


def fit(job: TrainJob, data: TrainData) -> Path:
    """Train on the data; returns the checkpoint's folder (see `checkpointing.run_training`)."""
    grpo = job.config.grpo

    def train() -> tuple[Any, float, dict[str, Any]]:
        with GraderPool(grpo.reward_workers, grpo.grading_timeout_s) as graders:
            prepare_workers(graders, data.samples)
            trainer = build_trainer(job, data, graders)
            seconds = checkpointing.train(trainer, job, data.samples)
        log = callbacks.read_log(job.folder)
        completions = grpo.prompts_per_step * grpo.num_generations
        tokens = completions * sum(row.get("completions/mean_length", 0.0) for row in log)
        counts = {
            "steps": len(log),
            "samples": len(data.samples),
            "eval_samples": len(data.eval_samples),
            "graders_killed": graders.num_killed,
            "generations": len(log) * completions,
            "tokens": round(tokens),
        }
        return trainer, seconds, counts

    return checkpointing.run_training(job, train)


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

    TRL resets only the prefix cache, which is enough if the vision weights are frozen.
    """
    counts = param_groups.count_parameters(trainer.model)
    if not any(trained for part, _, trained in counts if part in param_groups.VISION_PARTS):
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
