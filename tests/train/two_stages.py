"""A program, not a test: SFT then GRPO on a few samples, as the recipe runs them, and what the
trainer's model answers beside what its checkpoint answers.

    python tests/train/two_stages.py OUT_FOLDER [KEY=VALUE ...]        also under accelerate launch
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.models.utils import unwrap_model_for_generation

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.grade.workers import Workers
from difftrain.model.load import Loaded
from difftrain.pipeline.coordination import World
from difftrain.records import Sample
from difftrain.shapes import pool
from difftrain.train import grpo, lessons, modules, sft, sight, stage
from difftrain.train.dataset import Material

SMALL = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]", "sft.max_steps=3",
         "sft.samples_per_step=4", "sft.per_device_train_batch_size=2", "grpo.max_steps=2",
         "grpo.prompts_per_step=2", "grpo.num_generations=4", "grpo.per_device_train_batch_size=4",
         "grpo.max_completion_length=72", "grpo.eval_samples=0")  # fmt: skip
SAMPLES = 16


def answers(model: Any, processor: Any, samples: list[Sample]) -> tuple[list[list[int]], Any]:
    """Greedy answers as token ids, and the logits at the end of each prompt."""
    inputs = sight.encoded(Loaded(model, processor), [sight.messages(each) for each in samples])
    model.eval()
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=16)
        logits = model(**inputs).logits[:, -1].float()
    return ids[:, inputs["input_ids"].shape[1] :].tolist(), logits


def compared(trainer: Any, job: stage.Job, samples: list[Sample]) -> dict[str, Any]:
    """Train, ask the trainer's model, close the stage, and ask what `from_pretrained` loads."""
    seconds = stage.train(trainer, job)
    processor = trainer.processing_class
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        said, logits = answers(model, processor, samples)
    checkpoint = stage.close(trainer, job, seconds, {})
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    again, loaded = answers(model, AutoProcessor.from_pretrained(checkpoint), samples)
    apart = float((logits - loaded).abs().max())
    return {"trained": said, "loaded": again, "apart": apart, "checkpoint": str(checkpoint)}


def job_of(config: RunConfig, folder: Path, world: World, name: str) -> stage.Job:
    own = {"sft": config.sft, "grpo": config.grpo}[name]
    return stage.Job(
        folder=folder, world=world, title=name, model=config.model, settings={}, inputs={},
        lora=own.lora, freeze_vision=own.freeze_vision, shown={"sft": "loss"}.get(name, "reward"),
    )  # fmt: skip


def main() -> None:
    """Both stages; the first process writes OUT_FOLDER/told.json."""
    out, world = Path(sys.argv[1]), World.from_environment()
    config = resolve(compose_config([*SMALL, *sys.argv[2:]]))
    samples = list(pool.samples(pool.Split.pool, SAMPLES))
    targets = {each.sample_id: str(lessons.from_solution(each)) for each in samples}
    for name in ("sft", "grpo"):
        (out / name).mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    learned = sft.Lessons(samples, targets, {})
    trainer = sft.trainer_of(config, learned, out / "sft", world)
    told["sft"] = compared(trainer, job_of(config, out / "sft", world, "sft"), samples[:4])
    told["frozen"] = [part for part, _, n in modules.counted(trainer.model) if not n]
    del trainer
    start = replace(config.model, name=told["sft"]["checkpoint"])
    config = replace(config, model=start)
    with Workers(1, 20.0) as workers:
        trainer = grpo.trainer_of(config, Material(samples), out / "grpo", world, workers)
        told["grpo"] = compared(trainer, job_of(config, out / "grpo", world, "grpo"), samples[:4])
    if world.is_first:
        (out / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
