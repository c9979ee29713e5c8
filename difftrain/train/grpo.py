"""GRPO with TRL's trainer as it is: our settings in, a checkpoint and a step log out."""

from pathlib import Path
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.config.train import VllmMode
from difftrain.grade.workers import Workers
from difftrain.model import load, locate
from difftrain.pipeline.coordination import World
from difftrain.train import arguments, callbacks, lora, modules, rewards, rollouts, stage
from difftrain.train.dataset import Material, dataset
from difftrain.train.watch import Groups


def counts(
    config: RunConfig, folder: Path, material: Material, workers: Workers
) -> dict[str, float]:
    """What the training cost, from its own step log; graders_killed is the first process's."""
    log = callbacks.read_log(folder)
    answers = config.grpo.prompts_per_step * config.grpo.num_generations
    return {
        "steps": len(log),
        "samples": len(material.samples),
        "held_out": len(material.held_out),
        "graders_killed": workers.killed,
        "generations": len(log) * answers,
        "tokens": round(sum(row.get("length", 0.0) for row in log) * answers),
    }


def trainer_of(
    config: RunConfig, material: Material, folder: Path, world: World, workers: Workers
) -> Any:
    """TRL's trainer for this material, with our rewards."""
    processor = load.load_processor(config.model, config.data.min_pixels, config.data.max_pixels)
    # Before TRL's arguments, which make ZeRO-3 shard every model that is built after them.
    additions = lora.peft_config("grpo", config.grpo.lora, config.model)
    groups = Groups([*material.samples, *material.held_out], material.strata)
    paid: list[Any] = [*rewards.rewards(config.grpo, config.grade, groups, workers)]
    watched = bool(material.held_out)
    vocabulary = processor.tokenizer.get_vocab()
    by_vllm = config.grpo.vllm.mode is not VllmMode.none
    if by_vllm:
        rollouts.refuse_second_resize(config.model, material.samples)
    trainer: Any = GRPOTrainer(
        model=locate.source(config.model.name),
        reward_funcs=paid,
        args=arguments.arguments(config, folder, world, vocabulary, watched),
        train_dataset=dataset(material.samples),
        eval_dataset=dataset(material.held_out) if watched else None,
        processing_class=processor,
        peft_config=additions,
    )
    if config.grpo.freeze_vision:
        modules.freeze_vision(trainer.model)
    if by_vllm:
        rollouts.keep_fresh(trainer)
    return trainer


def fit(
    config: RunConfig,
    material: Material,
    folder: Path,
    world: World,
    title: str,
    inputs: dict[str, str],
) -> Path:
    """Train on the material; returns folder/checkpoint, which `from_pretrained` loads.

    Continues from the last whole checkpoint of an interrupted run; does nothing if finished.
    """
    if (checkpoint := stage.finished(folder)) is not None:
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    job = stage.Job(
        folder=folder,
        world=world,
        title=title,
        model=config.model,
        settings={**run_config.plain(config.grpo), "seed": config.seed},
        inputs=inputs,
        lora=config.grpo.lora,
        freeze_vision=config.grpo.freeze_vision,
        algebra=arguments.algebra(config.grpo, world),
        samples=material.samples,
    )
    with Workers(config.grpo.reward_workers, config.grpo.grading_timeout_s) as workers:
        trainer = trainer_of(config, material, folder, world, workers)
        seconds = stage.train(trainer, job)
    return stage.close(trainer, job, seconds, counts(config, folder, material, workers))
