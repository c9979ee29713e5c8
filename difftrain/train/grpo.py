"""GRPO with TRL's trainer as it is: our settings in, a checkpoint and a step log out."""

import shutil
import time
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain import lineage, settings
from difftrain.grade.workers import Workers
from difftrain.model import load, locate
from difftrain.settings import RunConfig
from difftrain.train import callbacks, modules, rewards
from difftrain.train.arguments import arguments
from difftrain.train.dataset import Material, dataset
from difftrain.train.watch import Groups
from difftrain.world import World


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end (trainer_state.json comes last)."""
    whole = [
        path.parent for path in (folder / "checkpoints").glob("checkpoint-*/trainer_state.json")
    ]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def save(trainer: Any, folder: Path, world: World) -> None:
    """Write folder/checkpoint, processor included, so that it is there whole or not at all."""
    half = folder / ".checkpoint.half"
    trainer.save_model(str(half))
    if world.is_first:
        trainer.processing_class.save_pretrained(half)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        half.replace(folder / "checkpoint")


def counts(
    config: RunConfig, folder: Path, material: Material, workers: Workers
) -> dict[str, float]:
    """What the training cost, from its own step log; graders_killed is the first process's."""
    log = callbacks.read_log(folder)
    answers = config.grpo.prompts_per_step * config.grpo.group_size
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
    """TRL's trainer for this material, with our rewards and without its printing."""
    processor = load.load_processor(config.model, config.data.min_pixels, config.data.max_pixels)
    groups = Groups([*material.samples, *material.held_out], material.strata)
    paid: list[Any] = [*rewards.rewards(config.grpo, config.grade, groups, workers)]
    watched = bool(material.held_out)
    vocabulary = processor.tokenizer.get_vocab()
    trainer: Any = GRPOTrainer(
        model=locate.source(config.model.name),
        reward_funcs=paid,
        args=arguments(config, folder, world, vocabulary, watched),
        train_dataset=dataset(material.samples),
        eval_dataset=dataset(material.held_out) if watched else None,
        processing_class=processor,
    )
    if config.grpo.freeze_vision:
        modules.freeze_vision(trainer.model)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
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
    checkpoint = folder / "checkpoint"
    if lineage.read_made(folder) is not None and checkpoint.is_dir():
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    with Workers(config.grpo.reward_workers, config.grpo.answer_seconds) as workers:
        trainer = trainer_of(config, material, folder, world, workers)
        resume = last_checkpoint(folder)
        step = int(resume.name.split("-")[1]) if resume else 0
        spent = callbacks.truncate_log(folder, step) if world.is_first else 0.0
        trainer.add_callback(callbacks.StepLog(folder, spent, title))
        if world.is_first:
            print(modules.table(trainer.model), flush=True)
        started = time.time()
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.state.global_step < trainer.state.max_steps:
        made = f"{trainer.state.global_step} of {trainer.state.max_steps} steps"
        raise RuntimeError(f"training ended after {made}: too few samples for one step?")
    save(trainer, folder, world)
    if world.is_first:
        lineage.write_made(
            folder,
            settings={**settings.plain(config.grpo), "seed": config.seed},
            inputs=inputs,
            seconds=spent + time.time() - started,
            counts=counts(config, folder, material, workers),
        )
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    # ZeRO-3 would otherwise shard the next model that is loaded, which is only asked.
    unset_hf_deepspeed_config()
    return checkpoint
