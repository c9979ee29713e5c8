"""What SFT and GRPO share around TRL's training loop: lock, resume, train, save a checkpoint."""

import json
import logging
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PrinterCallback, ProgressCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from difftrain.config.run_config import ConfigError
from difftrain.model import resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.pipeline.stop_request import StopRequested
from difftrain.records import Sample, TrainStage
from difftrain.train import (
    callbacks,
    exact_resume,
    image_cache,
    param_groups,
    stop_callback,
    trl_args,
)
from difftrain.train.trl_args import TrainJob

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"


def _restore_on_cpu(storage: Any, location: str) -> Any:
    return storage if location.startswith("cpu:") else None


# Processes without a GPU may load their optimizer to the device cpu:0, which torch.load refuses.
torch.serialization.register_package(100, lambda _: None, _restore_on_cpu)


def run_training(job: TrainJob, fit: Callable[[], tuple[Any, float, Mapping[str, Any]]]) -> Path:
    """Train and save while holding the stage's lock; returns the folder of the final checkpoint.

    Resumes an interrupted training from its last complete checkpoint; does nothing if finished.
    `fit` runs on every rank; it returns the trainer, total seconds and counts for manifest.json.
    """
    seconds, counts = 0.0, {}

    def train_and_save(_: Heartbeat) -> None:
        nonlocal seconds, counts
        trainer, seconds, counts = fit()
        save(trainer, job)

    run_shared_stage(
        job.folder,
        job.world,
        train_and_save,
        close=lambda: counts,
        seconds=lambda: seconds,
        settings=asdict(job.settings) | {"seed": job.config.seed},
        inputs=job.inputs,
        is_finished=lambda _: finished_checkpoint(job.folder) is not None,
    )
    if job.world.is_first:
        for name in ("checkpoints", image_cache.FOLDER):
            shutil.rmtree(job.folder / name, ignore_errors=True)
    return job.folder / CHECKPOINT


def finished_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a finished stage, else None. Raises MissingArtifact if it is damaged."""
    checkpoint = folder / CHECKPOINT
    if manifest.read_manifest(folder) is None or not checkpoint.is_dir():
        return None
    if problem := resolve.missing_part(checkpoint):
        raise MissingArtifact(
            f"the checkpoint {checkpoint} is incomplete: {problem}. Put the file back, or "
            f"delete {folder} and run the same command, which trains it again"
        )
    return checkpoint


def resume_problem(path: Path, num_processes: int = 1) -> str | None:
    """Why this many processes cannot resume from a checkpoint; None if they can.

    The first process writes trainer_state.json last. The others may have been killed before they
    wrote their RNG states: rng_state_<rank>.pth each (a single process writes rng_state.pth).
    """
    try:
        json.loads((path / "trainer_state.json").read_text())
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut short"
    for file in sorted(path.rglob("*.safetensors")):
        if problem := resolve.damage_in_file(file):
            return problem
    for file in sorted([*path.rglob("*.pt"), *path.rglob("*.pth")]):
        if not zipfile.is_zipfile(file):  # torch.save writes zip files
            return f"{file.name} is cut short"
    latest = path / "latest"  # names the folder of shards, if DeepSpeed wrote the checkpoint
    sharded = latest.is_file() and any((path / latest.read_text().strip()).glob("*optim_states.pt"))
    if not sharded and not any(path.glob("*.safetensors")):
        return "the weights are missing"
    if not sharded and not (path / "optimizer.pt").is_file():
        return "the optimizer state is missing"
    if (path / "rng_state.pth").is_file():
        return None
    missing = num_processes - len(list(path.glob("rng_state_*.pth")))
    return f"RNG state missing for {missing} of {num_processes} ranks" if missing > 0 else None


def last_checkpoint(folder: Path, num_processes: int = 1) -> Path | None:
    """The newest checkpoint that this many processes can resume from."""
    paths = [path for path in (folder / "checkpoints").glob("checkpoint-*") if path.is_dir()]
    numbered = [path for path in paths if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        problem = resume_problem(path, num_processes)
        if problem is None:
            return path
        logger.info("skipping incomplete checkpoint %s: %s", path, problem)
    return None


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load a checkpoint's weights into the model. Raises RuntimeError if a weight is missing.

    transformers saves Qwen2.5-VL's weights under the hub's names instead of the modules' names, and
    its Trainer silently skips names that no module has: a resumed run would continue from the base
    weights. DeepSpeed and LoRA checkpoints keep the modules' names and are not affected.
    """
    saved: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())


def train(trainer: Any, job: TrainJob, samples: Sequence[Sample]) -> float:
    """Train to the end, from the last complete checkpoint if any; returns the seconds of all runs.

    Raises ConfigError if ZeRO-3 would hang on samples without an image, StopRequested if training
    ended early because that was requested, RuntimeError if it ended early for another reason,
    GradientError if GradientCheck finds a problem.
    """
    settings, world = job.settings, job.world
    plugin = trainer.accelerator.state.deepspeed_plugin
    text_only = sum(not sample.images for sample in samples)
    # A process whose batch has no image never gathers the vision tower's weights, and a process
    # whose batch has an image would wait for it forever.
    if plugin and plugin.zero_stage == 3 and world.size > 1 and 0 < text_only < len(samples):
        rule = "with ZeRO-3 a step on samples with and without images would hang"
        advice = "use launch/accelerate/zero2.yaml, or only samples with (or only without) images"
        finding = f"{text_only} of {len(samples)} samples have no image"
        raise ConfigError([f"{job.title}: {finding}, and {rule}; {advice}"])
    if 0 < text_only < len(samples):  # a pass without images gives the vision tower no gradients
        trainer.args.ddp_find_unused_parameters = True
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(job.folder, world.size)
    trainer.accelerator.wait_for_everyone()
    last_step = int(resume.name.split("-")[1]) if resume else 0
    elapsed = callbacks.truncate_log(job.folder, last_step) if world.is_first else 0.0
    bar_key = "reward" if job.stage is TrainStage.grpo else "loss"
    trainer.add_callback(callbacks.JsonlLogger(job.folder, elapsed, job.title, bar_key))
    frozen = param_groups.VISION_PARTS if settings.freeze_vision else ()
    trainer.add_callback(param_groups.GradientCheck(trainer.model, frozen, text_only > 0))
    for callback in job.callbacks:
        trainer.add_callback(callback)
    table = param_groups.parameter_table(trainer.model)
    logger.info("%s; %s\n%s", job.title, trl_args.step_summary(settings, world), table)
    start = f"continues after step {last_step}" if resume else "starts at step 0"
    logger.info("%s %s; a checkpoint about every %d steps", job.title, start, settings.save_steps)
    if resume and not settings.lora.rank and not trainer.is_deepspeed_enabled:
        load_weights(trainer.model, resume)
    stop = stop_callback.StopOnRequest(trainer)
    trainer.add_callback(stop)
    trainer.add_callback(exact_resume.SaveBeforeNewRollouts(trainer))
    trainer.add_callback(exact_resume.SetEpoch())
    started = time.time()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.state.global_step < trainer.state.max_steps:
        steps = f"{trainer.state.global_step} of {trainer.state.max_steps} steps"
        if stop.has_stopped:
            trainer.accelerator.wait_for_everyone()  # no rank ends while another one saves
            saved = "it saved a checkpoint, from which the same command continues"
            raise StopRequested(f"{job.title} stopped on request after {steps}; {saved}")
        raise RuntimeError(f"training ended after {steps}: are there too few samples for a step?")
    return elapsed + time.time() - started


def save_processor(processor: Any, folder: Path) -> None:
    """Write the processor; also preprocessor_config.json, which some tools read instead of
    processor_config.json."""
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def save(trainer: Any, job: TrainJob) -> None:
    """Write the final checkpoint, with the processor, either completely or not at all.

    With LoRA the checkpoint is base model and adapter merged; the adapter is also saved beside it.
    """
    uses_lora, tmp_path = bool(job.settings.lora.rank), job.folder / ".checkpoint.tmp"
    trained_folder = job.folder / param_groups.ADAPTER if uses_lora else tmp_path
    trainer.save_model(str(trained_folder))
    trainer.accelerator.wait_for_everyone()
    # Otherwise ZeRO-3 would shard the next model that is loaded, which only generates.
    unset_hf_deepspeed_config()
    if job.world.is_first:
        if uses_lora:
            param_groups.merge_adapter(job.start_model, trained_folder, tmp_path)
        save_processor(trainer.processing_class, tmp_path)
        shutil.rmtree(job.folder / CHECKPOINT, ignore_errors=True)
        tmp_path.replace(job.folder / CHECKPOINT)
    trainer.accelerator.wait_for_everyone()
