"""SFT with TRL's trainer as it is: loss on the answer alone, no sample cut, none packed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from difftrain.config import run_config
from difftrain.config.run_config import RunConfig
from difftrain.grade.workers import Ending, Workers, grading
from difftrain.model import load, locate
from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World
from difftrain.records import Sample
from difftrain.train import arguments, callbacks, lessons, lora, modules, stage
from difftrain.train.dataset import with_pictures
from difftrain.train.lessons import Dropped

TARGETS = "sft_targets.json"
"""In the stage's folder: what each sample is taught, and how many were dropped for which reason."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """Samples in the order of their picks, what each is taught, and what was dropped."""

    samples: Sequence[Sample]
    targets: Mapping[str, str]
    dropped: Mapping[str, int]


def checked(
    config: RunConfig, samples: Sequence[Sample], targets: Mapping[str, str], processor: Any
) -> dict[str, str | Dropped]:
    """The targets that the grader calls right and that fit; for each other sample, why not."""
    with Workers(config.grpo.reward_workers, config.grpo.grading_timeout_s) as workers:
        asked = [grading(targets[each.sample_id], each, config.grade) for each in samples]
        replies = workers.ask(asked)
    found: dict[str, str | Dropped] = {}
    for sample, reply in zip(samples, replies, strict=True):
        text = targets[sample.sample_id]
        if isinstance(reply, Ending) or reply["value"] < 1:
            found[sample.sample_id] = Dropped.not_right
        elif lessons.length(processor, sample, text) > config.sft.cutoff_tokens:
            found[sample.sample_id] = Dropped.too_long
        else:
            found[sample.sample_id] = text
    return found


def prepared(
    config: RunConfig,
    samples: Sequence[Sample],
    targets: Mapping[str, str],
    folder: Path,
    world: World,
) -> Lessons:
    """What is learned, written down by the first process once and read by all, also after a kill.

    Samples whose target is not right, or that are too long, are dropped with their count. Raises
    FirstRankFailed with its reason if the first process stops.
    """
    path = folder / TARGETS
    if world.is_first and not path.is_file():
        with coordination.report_failure(folder, world):
            data = config.data
            processor = load.load_processor(config.model, data.min_pixels, data.max_pixels)
            found = checked(config, samples, targets, processor)
        kept = {key: text for key, text in found.items() if not isinstance(text, Dropped)}
        dropped = lessons.counted(found)
        manifest.write_json(path, {"targets": kept, "dropped": dropped})
        if dropped:
            print(f"SFT learns from {len(kept)} samples{lessons.told(dropped)}", flush=True)
    coordination.wait(
        folder,
        world,
        lambda: path.is_file() or coordination.failure_reason(folder) is not None,
        ranks=[0],
    )
    if not path.is_file():
        raise coordination.FirstRankFailed(f"rank 0 stopped: {coordination.failure_reason(folder)}")
    written = manifest.read_json(path)
    left = [each for each in samples if each.sample_id in written["targets"]]
    return Lessons(left, written["targets"], written["dropped"])


def trainer_of(config: RunConfig, learned: Lessons, folder: Path, world: World) -> Any:
    """TRL's trainer for these lessons."""
    processor = load.load_processor(config.model, config.data.min_pixels, config.data.max_pixels)
    # Before TRL's arguments, which make ZeRO-3 shard every model that is built after them.
    additions = lora.peft_config("sft", config.sft.lora, config.model)
    rows = [
        lessons.conversation(sample, learned.targets[sample.sample_id])
        for sample in learned.samples
    ]
    trainer: Any = SFTTrainer(
        model=locate.source(config.model.name),
        args=arguments.sft_arguments(config, folder, world),
        train_dataset=with_pictures(rows, learned.samples),
        processing_class=processor,
        peft_config=additions,
    )
    if config.sft.freeze_vision:
        modules.freeze_vision(trainer.model)
    return trainer


def fit(
    config: RunConfig,
    learned: Lessons,
    folder: Path,
    world: World,
    title: str,
    inputs: Mapping[str, str],
) -> Path:
    """Train on the lessons; returns folder/checkpoint, which `from_pretrained` loads.

    Continues from the last whole checkpoint of an interrupted run; does nothing if finished.
    """
    if (checkpoint := stage.finished(folder)) is not None:
        return checkpoint
    trainer = trainer_of(config, learned, folder, world)
    job = stage.Job(
        folder=folder,
        world=world,
        title=title,
        model=config.model,
        settings={**run_config.plain(config.sft), "seed": config.seed},
        inputs=inputs,
        lora=config.sft.lora,
        freeze_vision=config.sft.freeze_vision,
        shown="loss",
        algebra=arguments.algebra(config.sft, world),
        samples=learned.samples,
    )
    seconds = stage.train(trainer, job)
    log = callbacks.read_log(folder)
    counts = {
        "steps": len(log),
        "samples": len(learned.samples),
        "dropped": dict(learned.dropped),
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
    }
    return stage.close(trainer, job, seconds, counts)
