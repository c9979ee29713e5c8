"""A program that test_two_stages.py runs: it trains by SFT and then by GRPO on a few samples.

After each stage it compares the responses of the trained model with those of its saved checkpoint.

    python tests/train/two_stages.py OUT_FOLDER [KEY=VALUE ...]        also under accelerate launch
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.models.utils import unwrap_model_for_generation

from difftrain.cli import configure_logging
from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.grade.pool import GraderPool
from difftrain.model.loading import LoadedModel
from difftrain.pipeline.coordination import World
from difftrain.records import Sample, TrainStage
from difftrain.shapes import pool
from difftrain.train import checkpointing, grpo, param_groups, preflight, sft
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

# select.sft_strata is required with SFT; here the samples are given, so nothing is selected.
SMALL = ("train_stages=sft_then_grpo", "select.sft_strata=[medium]", "sft.max_steps=3",
         "sft.samples_per_step=4", "sft.per_device_train_batch_size=2", "grpo.max_steps=2",
         "grpo.prompts_per_step=2", "grpo.num_generations=4", "grpo.per_device_train_batch_size=4",
         "grpo.max_completion_length=72", "grpo.eval_samples=0")  # fmt: skip
NUM_SAMPLES = 16


def greedy_responses(
    model: Any, processor: Any, samples: list[Sample]
) -> tuple[list[list[int]], Any]:
    """Greedy responses as token ids, and the logits at the end of each prompt."""
    messages = [preflight.trl_messages(sample) for sample in samples]
    inputs = preflight.encode(LoadedModel(model, processor), messages)
    model.eval()
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=16)
        logits = model(**inputs).logits[:, -1].float()
    return ids[:, inputs["input_ids"].shape[1] :].tolist(), logits


def train_and_compare(trainer: Any, job: TrainJob, samples: list[Sample]) -> dict[str, Any]:
    """Train, generate with the trained model, save it, and generate with the saved checkpoint."""
    checkpointing.train(trainer, job, samples)
    processor = trainer.processing_class
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        trained, trained_logits = greedy_responses(model, processor, samples)
    checkpointing.save(trainer, job)
    checkpoint = job.folder / checkpointing.CHECKPOINT
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    loaded, logits = greedy_responses(model, AutoProcessor.from_pretrained(checkpoint), samples)
    max_difference = float((trained_logits - logits).abs().max())
    return {
        "trained": trained,
        "loaded": loaded,
        "max_difference": max_difference,
        "checkpoint": str(checkpoint),
    }


def main() -> None:
    """Train both stages; the first process writes OUT_FOLDER/result.json."""
    out, world = Path(sys.argv[1]), World.from_environment()
    configure_logging(world, verbose=False)
    config = resolve(compose_config([*SMALL, *sys.argv[2:]]))
    samples = list(pool.samples(pool.Split.pool, NUM_SAMPLES))
    targets = {s.sample_id: str(sft.from_rationale(s)) for s in samples}
    result: dict[str, Any] = {}
    for stage in ("sft", "grpo"):
        (out / stage).mkdir(parents=True, exist_ok=True)
    job = TrainJob(TrainStage.sft, config, out / "sft", world, title="sft")
    trainer = sft.build_trainer(job, sft.SftData(samples, targets, dropped={}))
    result["sft"] = train_and_compare(trainer, job, samples[:4])
    counts = param_groups.count_parameters(trainer.model)
    result["frozen"] = [part for part, _, trained in counts if not trained]
    del trainer
    start = Path(result["sft"]["checkpoint"])
    job = TrainJob(TrainStage.grpo, config, out / "grpo", world, title="grpo", start=start)
    with GraderPool(1, 20.0) as graders:  # one worker, 20 seconds per answer
        trainer = grpo.build_trainer(job, TrainData(samples), graders)
        result["grpo"] = train_and_compare(trainer, job, samples[:4])
    if world.is_first:
        (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
