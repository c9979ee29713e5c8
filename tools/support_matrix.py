"""Run every step on a tiny random model of each family and write the table docs/support_matrix.md.

    python tools/support_matrix.py [FAMILY ...] [--to FILE]

A P stands for a check that passed here, with the weights and processors of tiny_families.py; a
family's published weights were not downloaded. Every other entry is the reason. Nothing is passed
because it was not run.
"""

import argparse
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_families
import torch
import transformers
import trl
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.smolvlm import processing_smolvlm

from difftrain.cli.overrides import compose_config
from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError, RunConfig, resolve
from difftrain.evaluate.generate import (
    pixel_budgets,
    response_key,
    stream_responses,
    widest_budget,
)
from difftrain.evaluate.loading import load_items
from difftrain.grade.pool import GraderPool
from difftrain.model import chat_format, family, family_check
from difftrain.model.engines.hf import HfEngine
from difftrain.model.loading import LoadedModel, load, with_pixel_budget
from difftrain.pipeline.coordination import World
from difftrain.records import Sample, TrainStage
from difftrain.shapes import pool
from difftrain.train import checkpointing, grpo, preflight, sft
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

STEPS = ("preflight", "probe", "masses", "bans", "GRPO", "SFT", "checkpoint", "evaluate")
PIXELS = 56 * 56, 224 * 224
SETTINGS = (
    "model=any", "model.dtype=float32", "data.min_pixels=3136", "data.max_pixels=50176",
    "train_stages=sft_then_grpo", "select.sft_strata=[medium]", "grpo.max_steps=2",
    "grpo.prompts_per_step=2", "grpo.num_generations=2", "grpo.per_device_train_batch_size=4",
    "grpo.max_completion_length=6", "grpo.eval_samples=0", "grpo.learning_rate=1e-3",
    "grpo.gradient_checkpointing=false", "grpo.freeze_vision=true", "sft.max_steps=2",
    "sft.samples_per_step=2", "sft.per_device_train_batch_size=2", "sft.learning_rate=1e-3",
    "sft.gradient_checkpointing=false", "sft.freeze_vision=false",
)  # fmt: skip
NUM_SAMPLES = 6
HEAD = """# Which model families work

Written by `python tools/support_matrix.py`; `tests/model/test_families.py` (slow) runs it again.
Checked with transformers {transformers} and TRL {trl} on a CPU, on tiny models with random weights
and the family's own classes and processor. Published weights, vLLM and GPUs were not part of it.
Chat templates are the published ones of Qwen2.5-VL, Qwen3-VL, Qwen3.5, Gemma 3, Idefics 3 and
SmolVLM (as TRL has them); the others are written after them. SmolVLM's processor needs the package
num2words, which only videos would use; where it is missing, a stand-in replaced it.

"""
MEANINGS = """
* **preflight**: the ten checks before training pass.
* **probe**: greedy tokens of the hf engine equal `generate`'s for five views: text only, image,
  black image, two images, image inside the text.
* **masses**: attention masses equal eager attention's within 1e-4, in the layers named.
* **bans**: no special token that an image puts into the prompt can be sampled.
* **GRPO**: two steps with a frozen vision tower; the language model changes, the tower does not.
* **SFT**: two steps; the tokens equal the generation prompt plus the target, and the tower changes.
* **checkpoint**: what GRPO saved has the source's tensor names, template and equal logits.
* **evaluate**: every item of a miniature benchmark gets a response.

## Measures and engines

Responses come from the engine. Attention and log-probabilities always come from transformers in
this process, so that CMAB, ACE and image gain do not depend on the engine.

| measure | needs | hf | vllm | http |
|---|---|---|---|---|
| PISM, CDE, DRM, pass rate | responses | tested | tested [a] | tested [b] |
| CMAB | a correct response and its attention | tested | expected [c] | expected [c] |
| ACE | a response and its attention | tested | expected [c] | expected [c] |
| image gain | log-probability of the gold answer | tested | expected [c] | refused [d] |

* a: offline, on vLLM's CPU build with the tiny model ([what was run](vllm.md)).
* b: on a server of our own that runs transformers (`tests/model/test_real_server.py`), and on
  `vllm serve` ([what was run](vllm.md)).
* c: the pass is the same code; the pair was not run.
* d: the server has no log-probabilities of a given answer, and the weights need not be here.

## Training

On the tiny model on CPUs; no GPU was part of it.

| training | one process | DDP | ZeRO-2 | ZeRO-3 | two nodes |
|---|---|---|---|---|---|
| GRPO, full | tested | tested | tested | tested | [ZeRO-2 and ZeRO-3](clusters.md) |
| GRPO, LoRA | tested | expected | expected | expected | expected |
| SFT then GRPO, full | tested | expected | tested | tested | expected |
| SFT then GRPO, LoRA | tested | expected | expected | tested | expected |
| shared prompts | tested | tested | tested | tested | expected |
| refill (`grpo.dynamic_sampling`) | tested | tested | expected | tested | expected |
| rollouts by vLLM | [what was run](vllm.md) | expected | expected | expected | expected |

GRPO and SFT of each family: the first table, in one process. Mixtures of experts, quantized weights
and FSDP were not tried.
"""


def parts_of(model: Any) -> dict[str, torch.Tensor]:
    """The sum of the absolute weights of each part."""
    by_part: dict[str, torch.Tensor] = {}
    names = family.parts(model)
    for name, parameter in model.named_parameters():
        total = parameter.detach().double().abs().sum()
        by_part[names[name]] = by_part.get(names[name], torch.zeros_like(total)) + total
    return by_part


def alternating(name: str) -> Callable[..., list[float]]:
    """A reward that differs within every group, so that the weights change."""

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(i % 2) for i in range(len(completions))]

    reward.__name__ = name
    return reward


class FamilyCase:
    """One family's tiny model, loaded, with the settings of its training."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source, self.folder = tiny_families.build(name, folder / name), folder / name / "runs"
        self.config: RunConfig = resolve(compose_config([*SETTINGS, f"model.name={self.source}"]))
        self.samples: list[Sample] = list(pool.samples(pool.Split.pool, NUM_SAMPLES))
        model = ModelConfig(name=str(self.source), dtype=Dtype.float32)
        self.loaded: LoadedModel = load(model, *PIXELS)
        self.requests = family_check.view_requests(self.samples)
        self.checkpoint: Path | None = None

    def job(self, stage: TrainStage) -> TrainJob:
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        return TrainJob(stage, self.config, folder, World(), title=stage)

    def preflight(self) -> str:
        stages = {stage.value: getattr(self.config, stage) for stage in self.config.stages}
        candidate = preflight.Candidate(
            self.loaded, self.samples[:2], self.config.model, stages, self.folder / "preflight"
        )
        results = preflight.run_checks(candidate)
        failed = [f"{key}: {result.detail}" for key, result in results.items() if not result.passed]
        return "; ".join(failed) or "P"

    def probe(self) -> str:
        return entry(family_check.check_tokens(self.loaded, self.requests))

    def masses(self) -> str:
        result = family_check.check_masses(self.loaded, self.requests)
        layers = family.measured_layers(self.loaded.model.config)
        text = family.layers_text(layers, self.loaded.model.config)
        return f"P ({text})" if result.passed else result.detail

    def bans(self) -> str:
        return entry(family_check.check_bans(self.loaded, self.requests))

    def grpo(self) -> str:
        job, data = self.job(TrainStage.grpo), TrainData(self.samples)
        with GraderPool(1, 20.0) as graders:
            trainer = grpo.build_trainer(job, data, graders)
            trainer.reward_funcs = [alternating(f.__name__) for f in trainer.reward_funcs]
            notes: set[str] = set()

            def explain(setting: str, reason: str) -> None:
                notes.add(f"{setting} is not used: {reason}")

            trainer._explain_once = explain
            before = parts_of(trainer.model)
            checkpointing.train(trainer, job, self.samples)
        after = parts_of(trainer.model)
        if any(before[part] != after[part] for part in family.VISION_PARTS):
            return "the frozen vision tower changed"
        if before[family.LANGUAGE] == after[family.LANGUAGE]:
            return "the language model did not change"
        self.trained = trainer.model
        checkpointing.save(trainer, job)
        self.checkpoint = job.folder / checkpointing.CHECKPOINT
        return f"P ({'; '.join(sorted(notes))})" if notes else "P"

    def sft(self) -> str:
        job = self.job(TrainStage.sft)
        targets = {s.sample_id: str(sft.from_rationale(s)) for s in self.samples}
        trainer = sft.build_trainer(job, sft.SftData(self.samples, targets, dropped={}))
        processor = trainer.processing_class
        batch = trainer.data_collator([trainer.train_dataset[0]])
        ids = batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()
        prompt = preflight.encode(self.loaded, [preflight.trl_messages(self.samples[0])])
        text = chat_format.completion_text(processor, targets[self.samples[0].sample_id])
        expected = prompt["input_ids"][0].tolist()
        expected += processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids != expected:
            return "its tokens are not the generation prompt plus the target"
        before = parts_of(trainer.model)
        checkpointing.train(trainer, job, self.samples)
        after = parts_of(trainer.model)
        same = [part for part in before if before[part] == after[part]]
        return f"not trained: {', '.join(same)}" if same else "P"

    def checkpoint_travels(self) -> str:
        if self.checkpoint is None:
            return "not run: GRPO saved none"
        names = [tensor_names(folder) for folder in (self.source, self.checkpoint)]
        if names[0] != names[1]:
            return f"other tensor names: {sorted(names[0] ^ names[1])[:3]}"
        processors = [AutoProcessor.from_pretrained(f) for f in (self.source, self.checkpoint)]
        if processors[0].chat_template != processors[1].chat_template:
            return "the chat template changed"
        if not (self.checkpoint / "preprocessor_config.json").is_file():
            return "preprocessor_config.json is missing"
        model = AutoModelForImageTextToText.from_pretrained(self.checkpoint, dtype=torch.float32)
        inputs = family_check.reference_inputs(self.loaded, self.requests["image"])
        with torch.inference_mode():
            logits = [m.eval()(**inputs).logits for m in (self.trained, model)]
        difference = float((logits[0] - logits[1]).abs().max())
        return "P" if difference < 1e-5 else f"logits differ by {difference:.1e} when reloaded"

    def evaluate(self) -> str:
        config = EvaluateConfig(benchmarks=["shapes/MMMU"], limit=4, max_new_tokens=4)
        items = [(response_key(item), item) for item in load_items(config)]
        budgets = pixel_budgets(config, PIXELS)
        engine = HfEngine(with_pixel_budget(self.loaded, *widest_budget(budgets)), ModelConfig())
        rows = list(stream_responses(engine, items, config, budgets))
        failed = [str(row.error) for row in rows if getattr(row, "error", None)]
        return "P" if len(rows) == len(items) and not failed else f"failed: {failed[:1]}"


def entry(result: family_check.CheckResult) -> str:
    """A check's result as an entry of the table."""
    return "P" if result.passed else result.detail


def tensor_names(folder: Path) -> set[str]:
    """The names of the tensors in a folder's weights."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {*file.keys()}


def run(name: str, folder: Path) -> dict[str, str]:
    """One family's row of the table."""
    expected = tiny_families.FAMILIES[name].refused
    try:
        case = FamilyCase(name, folder)
    except ConfigError as error:
        reason = error.problems[0].rpartition("cannot be used: ")[2]
        return dict.fromkeys(STEPS, f"refused: {reason}")
    if expected:
        return dict.fromkeys(STEPS, f"F: must be refused ({expected}), but was loaded")
    steps = (case.preflight, case.probe, case.masses, case.bans, case.grpo, case.sft,
             case.checkpoint_travels, case.evaluate)  # fmt: skip
    row = {}
    for step, function in zip(STEPS, steps, strict=True):
        try:
            result = function()
        except Exception as error:  # noqa: BLE001  # any failure is this step's entry
            if os.environ.get("TRACE"):
                traceback.print_exc()
            result = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        row[step] = result if result.startswith(("P", "not run")) else f"F: {result}"
        print(f"{name} {step}: {row[step]}", flush=True)
    return row


def table(rows: dict[str, dict[str, str]]) -> str:
    """The table as Markdown; long reasons become footnotes."""
    notes: list[str] = []

    def cell(text: str) -> str:
        kind, separator, reason = text.partition(" (" if text.startswith("P (") else ": ")
        if not separator:
            return text
        reason = reason.removesuffix(")") if kind == "P" else reason
        if reason not in notes:
            notes.append(reason)
        return f"{kind} [{notes.index(reason) + 1}]"

    lines = [f"| family | {' | '.join(STEPS)} |", f"|---|{'---|' * len(STEPS)}"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(row[step]) for step in STEPS)} |")
    versions = {"transformers": transformers.__version__, "trl": trl.__version__}
    footnotes = "".join(f"\n{i}. {note}" for i, note in enumerate(notes, 1))
    return HEAD.format(**versions) + "\n".join(lines) + "\n" + footnotes + "\n" + MEANINGS


def allow_without_num2words() -> None:
    """SmolVLM's processor cannot be built without the package num2words, which only videos need."""
    module: Any = processing_smolvlm
    module.num2words = module.num2words or str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=[])
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    allow_without_num2words()
    with tempfile.TemporaryDirectory() as folder:
        names = options.families or list(tiny_families.FAMILIES)
        rows = {name: run(name, Path(folder)) for name in names}
    text = table(rows)
    if options.to:
        options.to.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
