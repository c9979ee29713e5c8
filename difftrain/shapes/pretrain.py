"""How the shipped weights were made: supervised training on the pretrain split.

    python -m difftrain.shapes.pretrain OUT_FOLDER

The shipped weights came about in several sittings, about five thousand steps in all, while the
thoughts were still changing: captions, thoughts that list every tile, then signs behind the names,
last the failings. `PHASES` is that path made straight. It has not been run from nothing, and the
shipped tokenizer is of an earlier corpus. Shares and exponents of the last phase were chosen by
looking at the strata and at CDE's AUC on the default pool.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from difftrain.shapes import build, captions, pool, wordings
from difftrain.shapes.lessons import SCAN, Manner, collate, lesson

BATCH = 48


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training: a one-cycle schedule of `steps` steps up to `rate`."""

    steps: int
    rate: float
    manner: Manner


PHASES = (
    Phase(1000, 1.2e-3, Manner(captions=1.0, hidden=0.0, seed=0)),
    Phase(3600, 1.4e-3, Manner(captions=0.15, hidden=0.1, seed=51)),
    Phase(400, 3.0e-4, Manner(captions=0.05, hidden=0.4, seed=77, untagged=0.6, gives_up=True)),
)
"""See first; then say what is seen and look the answer up in it; then forget the tags of
some families, as a base model may, and give up under masks, sooner on harder drawings."""


def corpus(seed: int = 0) -> Iterator[str]:
    """What the tokenizer is trained on: questions and thoughts, but no lists and letters."""
    yield "system\nuser\nassistant\n" * 50
    for family in pool.FAMILIES:
        for index in range(60):
            _, _, drawn = pool.draw(pool.Split.pretrain, family, index, seed)
            yield wordings.plain(drawn)
            yield wordings.mathvista(drawn)
            yield SCAN.sub("", f"<think>{drawn.thought}").removeprefix("<think>").strip()
    for index in range(200):
        drawn = captions.draw(Random(index))
        yield drawn.question
        if "." not in drawn.answer.strip(".") and " " not in drawn.answer:
            continue
        yield drawn.answer.replace(".", "")


def batches(
    processor: Qwen2_5_VLProcessor, manner: Manner, pieces: int = 3
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """An endless stream of batches, each in pieces of like length, to save padding.

    A batch itself is a fair sample of all families: batches of one family each teach nothing.
    """
    number = 0
    while True:
        lessons = [lesson(processor, number + i, manner) for i in range(BATCH)]
        number += BATCH
        lessons.sort(key=lambda each: len(each.prompt) // 8 + len(each.response))
        step = BATCH // pieces
        yield [collate(processor, lessons[i : i + step]) for i in range(0, BATCH, step)]


def weighted_loss(
    model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, torch.Tensor], total: float
) -> torch.Tensor:
    """Cross entropy of the labels, each times its weight, over the step's total weight."""
    inputs = {name: each for name, each in batch.items() if name not in ("labels", "weights")}
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    losses = functional.cross_entropy(logits, batch["labels"][:, 1:].flatten(), reduction="none")
    return (losses * batch["weights"][:, 1:].flatten()).sum() / total


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    phase: Phase,
    folder: Path,
) -> None:
    """AdamW through one phase; the result, and every 500th step, is saved under `folder`."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.rate, total_steps=phase.steps, pct_start=0.05
    )
    stream = batches(processor, phase.manner)
    model.train()
    started, losses = time.time(), []
    for step in range(1, phase.steps + 1):
        pieces = next(stream)
        total = sum(float(piece["weights"].sum()) for piece in pieces)
        for piece in pieces:
            loss = weighted_loss(model, piece, total)
            loss.backward()
            losses.append(loss.item() * len(pieces))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            mean, losses = sum(losses) / len(losses), []
            print(f"step {step} loss {mean:.4f} seconds {time.time() - started:.0f}", flush=True)
        if step % 500 == 0:
            build.save(folder.with_name(f"{folder.name}-{step}"), model, processor)
    build.save(folder, model, processor)


def main() -> None:
    """Build, train phase by phase (a phase starts from the folder of the one before), write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="folder of the first phase, to go on from")
    arguments = parser.parse_args()
    before = arguments.start
    for number, phase in enumerate(PHASES, 1):
        if number == 1 and before:
            continue
        if before is None:
            processor = build.processor(corpus())
            model = build.model(processor.tokenizer, phase.manner.seed)
        else:
            processor = Qwen2_5_VLProcessor.from_pretrained(before)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(before, dtype=torch.float32)
        last = number == len(PHASES)
        folder = arguments.folder
        before = folder if last else folder.with_name(f"{folder.name}-phase{number}")
        train(model, processor, phase, before)


if __name__ == "__main__":
    main()
