"""What SFT and GRPO share: where to continue, the first step's check, a whole checkpoint.

Not here: what is learned (sft.py, grpo.py) and the loop itself, which is TRL's.
"""

import json
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText, PrinterCallback, ProgressCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import LoraConfig
from difftrain.model import checkpoint_files
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.records import Sample
from difftrain.train import callbacks, lora, modules
from difftrain.train.learning import FirstGradients

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage of training: where it writes, who shares it, what manifest.json says of it.

    `shown` is the number beside the bar, `samples` what is learned from.
    """

    folder: Path
    world: World
    title: str
    model: ModelConfig
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    lora: LoraConfig
    freeze_vision: bool
    shown: str = "reward"
    algebra: str = ""
    samples: Sequence[Sample] = ()

    @property
    def blind(self) -> int:
        """How many samples have no picture."""
        return sum(not each.images for each in self.samples)

    @property
    def checkpoint(self) -> Path:
        """What `from_pretrained` loads once the stage is finished."""
        return self.folder / CHECKPOINT


def finished(folder: Path) -> Path | None:
    """The checkpoint of a finished stage, None of one to be made.

    Raises MissingArtifact if the stage was finished and its checkpoint is not whole any more.
    """
    if manifest.read_manifest(folder) is None or not (folder / CHECKPOINT).is_dir():
        return None
    if told := checkpoint_files.lacking(folder / CHECKPOINT):
        raise MissingArtifact(
            f"the checkpoint {folder / CHECKPOINT} is incomplete: {told}. Put the file back, or "
            f"delete {folder} and run the same command, which trains it again"
        )
    return folder / CHECKPOINT


def unresumable(path: Path, processes: int = 1) -> str | None:
    """Why so many processes cannot go on from this checkpoint; None if all they need is whole.

    trainer_state.json is written last by the first process; others may have been killed before
    their generators' states, a file each (rng_state.pth is that of a process by itself).
    """
    try:
        json.loads((path / "trainer_state.json").read_text())
    except FileNotFoundError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut short"
    for each in sorted(path.rglob("*.safetensors")):
        if told := checkpoint_files.cut_short(each):
            return told
    for each in sorted([*path.rglob("*.pt"), *path.rglob("*.pth")]):
        if not zipfile.is_zipfile(each):
            return f"{each.name} is cut short"
    latest = path / "latest"
    sharded = latest.is_file() and any((path / latest.read_text().strip()).glob("*optim_states.pt"))
    if not sharded and not any(path.glob("*.safetensors")):
        return "the weights are missing"
    if not sharded and not (path / "optimizer.pt").is_file():
        return "the optimizer's state is missing"
    if (path / "rng_state.pth").is_file():
        return None
    lacking = processes - len(list(path.glob("rng_state_*.pth")))
    told = f"the generators' state is missing of {lacking} of {processes} processes"
    return told if lacking > 0 else None


def last_checkpoint(folder: Path, processes: int = 1, tell: bool = False) -> Path | None:
    """The newest checkpoint from which so many processes can go on; `tell` names those passed
    over."""
    found = [
        path
        for path in (folder / "checkpoints").glob("checkpoint-*")
        if path.is_dir() and path.name.split("-")[1].isdigit()
    ]
    for path in sorted(found, key=lambda path: -int(path.name.split("-")[1])):
        told = unresumable(path, processes)
        if told is None:
            return path
        if tell:
            print(f"{path} is not whole ({told}): passed over", flush=True)
    return None


def refuse_mixed(trainer: Any, job: Job) -> None:
    """Raises ConfigError where some samples have pictures and some none, and ZeRO-3 shares weights.

    A process whose batch has no picture does not ask for the vision tower's weights, and one whose
    batch has one waits for them for ever.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    sharded = plugin is not None and plugin.zero_stage == 3 and job.world.size > 1
    if sharded and 0 < job.blind < len(job.samples):
        raise ConfigError(
            [
                f"{job.title}: {job.blind} of {len(job.samples)} samples have no picture, and with "
                "ZeRO-3 a step that mixes both would hang; use launch/accelerate/zero2.yaml, or "
                "keep one kind"
            ]
        )


def restore(model: Any, checkpoint: Path) -> None:
    """Load a checkpoint's weights into the model that is trained; all of them, or an error.

    transformers writes Qwen2.5-VL's weights under the names of the hub, not of its modules, and
    its Trainer loads by name and passes over what it does not find: a resumed run would go on from
    the base weights, and say nothing. DeepSpeed and LoRA keep names of their own, and need this
    not.
    """
    read: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(read.state_dict())


def train(trainer: Any, job: Job) -> float:
    """Train to the end, from the last whole checkpoint if there is one; seconds, all starts.

    Raises RuntimeError if training ends before its last step, NotAsConfigured after the first.
    """
    refuse_mixed(trainer, job)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    resume = last_checkpoint(job.folder, job.world.size, job.world.is_first)
    trainer.accelerator.wait_for_everyone()
    step = int(resume.name.split("-")[1]) if resume else 0
    spent = callbacks.truncate_log(job.folder, step) if job.world.is_first else 0.0
    trainer.add_callback(callbacks.StepLog(job.folder, spent, job.title, job.shown))
    frozen = modules.VISION_PARTS if job.freeze_vision else ()
    trainer.add_callback(FirstGradients(trainer.model, frozen, job.blind > 0))
    if job.world.is_first:
        print(f"{job.title}; {job.algebra}\n{modules.table(trainer.model)}", flush=True)
    if resume is not None and not job.lora.rank and not trainer.is_deepspeed_enabled:
        restore(trainer.model, resume)
    started = time.time()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.state.global_step < trainer.state.max_steps:
        made = f"{trainer.state.global_step} of {trainer.state.max_steps} steps"
        raise RuntimeError(f"training ended after {made}: too few samples for one step?")
    return spent + time.time() - started


def save(trainer: Any, job: Job) -> None:
    """Write the checkpoint, processor included, so that it is there whole or not at all.

    Of LoRA the adapter is kept beside it, and the checkpoint is base and adapter as one model.
    """
    half = job.folder / ".checkpoint.tmp"
    alone = job.folder / lora.ADAPTER if job.lora.rank else half
    trainer.save_model(str(alone))
    trainer.accelerator.wait_for_everyone()
    # ZeRO-3 would otherwise shard the next model that is loaded, which is only asked.
    unset_hf_deepspeed_config()
    if not job.world.is_first:
        return
    if job.lora.rank:
        lora.merge(job.model, alone, half)
    trainer.processing_class.save_pretrained(half)
    shutil.rmtree(job.checkpoint, ignore_errors=True)
    half.replace(job.checkpoint)


def close(trainer: Any, job: Job, seconds: float, counts: Mapping[str, Any]) -> Path:
    """Save, write manifest.json, and forget the checkpoints of the way; the checkpoint."""
    save(trainer, job)
    if job.world.is_first:
        manifest.write_manifest(
            job.folder, settings=job.settings, inputs=job.inputs, seconds=seconds, counts=counts
        )
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return job.checkpoint
