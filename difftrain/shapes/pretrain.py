"""How the shipped weights were made: supervised training on the pretrain split, from nothing.

    python -m difftrain.shapes.pretrain OUT_FOLDER

A tenth of the pictures is partly hidden and a few are left out, so that skill under a mask is
graded and a question without its picture still gets an answer.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image, ImageDraw
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from difftrain import seeds
from difftrain.data import prompts
from difftrain.shapes import build, captions, pool, wordings
from difftrain.shapes.families import Drawn

HIDDEN_SHARE = 0.10
TEXT_ONLY_SHARE = 0.06
CAPTION_SHARE = 0.25
MIX = {**pool.MIX, "noise": 3, "prior": 5, "verify": 7, "colour": 8, "compare": 8, "odd": 8}
END = "<|im_end|>"
BATCH = 32


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training: the first `steps` of a one-cycle schedule of `cycle` steps.

    `untagged` is the share of responses that leave out the answer's tags.
    """

    steps: int
    cycle: int
    rate: float
    untagged: float
    seed: int


PHASES = (
    Phase(steps=3500, cycle=5000, rate=1.5e-3, untagged=0.0, seed=0),
    Phase(steps=120, cycle=120, rate=3.0e-4, untagged=0.55, seed=1),
)
"""Stopped early, and careless about tags, on purpose: difficulty needs skill at every level, and
reinforcement learning finds in such a base what it finds in real ones, above all the layout."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One supervised example: the prompt as text, its picture if any, and the response."""

    prompt: str
    image: Image.Image | None
    response: str


def hide(image: Image.Image, rng: Random) -> Image.Image:
    """A copy with a random share, up to nine tenths, made black: pixels or one rectangle."""
    share = rng.uniform(0.1, 0.9)
    width, height = image.size
    hidden = image.copy()
    if rng.random() < 0.7:
        pixels = bytes(255 if rng.random() < share else 0 for _ in range(width * height))
        hidden.paste((0, 0, 0), mask=Image.frombytes("L", image.size, pixels))
        return hidden
    side = share**0.5
    left = rng.randint(0, round(width * (1 - side)))
    top = rng.randint(0, round(height * (1 - side)))
    box = (left, top, left + round(width * side), top + round(height * side))
    ImageDraw.Draw(hidden).rectangle(box, fill="black")
    return hidden


def lesson(processor: Qwen2_5_VLProcessor, number: int, phase: Phase) -> Lesson:
    """Lesson `number` of a phase's stream; always the same."""
    rng = Random(seeds.derive(phase.seed, "pretrain", number))
    tagged = phase.untagged == 0 or rng.random() >= phase.untagged
    if rng.random() < CAPTION_SHARE:
        drawn = captions.draw(rng)
        return spoken(processor, (drawn.image, drawn.question), drawn, tagged)
    family = rng.choices(list(MIX), list(MIX.values()))[0]
    _, _, drawn = pool.draw(pool.Split.pretrain, family, number, phase.seed)
    image = None if rng.random() < TEXT_ONLY_SHARE else drawn.image
    if image is not None and rng.random() < HIDDEN_SHARE:
        image = hide(image, rng)
    words = wordings.any_of_them(drawn, rng)
    return spoken(processor, (words,) if image is None else (image, words), drawn, tagged)


def spoken(
    processor: Qwen2_5_VLProcessor, parts: tuple[Any, ...], drawn: Drawn, tagged: bool
) -> Lesson:
    """The lesson of a question put as `parts`, with its thought and answer."""
    prompt = processor.apply_chat_template(
        prompts.messages(parts), add_generation_prompt=True, tokenize=False
    )
    answer = f"<answer>{drawn.answer}</answer>" if tagged else drawn.answer
    image = parts[0] if len(parts) == 2 else None
    return Lesson(str(prompt), image, f"<think>{drawn.thought}</think>{answer}{END}")


def corpus(seed: int = 0) -> Iterator[str]:
    """What the tokenizer is trained on: questions and thoughts, but no letters to be read."""
    yield "system\nuser\nassistant\n" * 50
    for family in pool.FAMILIES:
        for index in range(60):
            _, _, drawn = pool.draw(pool.Split.pretrain, family, index, seed)
            yield wordings.plain(drawn)
            yield wordings.mathvista(drawn)
            yield drawn.thought
    for index in range(200):
        drawn = captions.draw(Random(index))
        yield drawn.question
        if "." not in drawn.answer.strip(".") and " " not in drawn.answer:
            continue
        yield drawn.answer.replace(".", "")


def collate(processor: Any, lessons: list[Lesson]) -> dict[str, torch.Tensor]:
    """Model inputs and labels; the loss sees only the response."""
    processor.tokenizer.padding_side = "right"
    images = [lesson.image for lesson in lessons if lesson.image is not None]
    batch = processor(
        text=[lesson.prompt + lesson.response for lesson in lessons],
        images=images or None,
        padding=True,
        return_tensors="pt",
    )
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = -100
    ends = batch["attention_mask"].sum(1)
    for row, (lesson, end) in enumerate(zip(lessons, ends.tolist(), strict=True)):
        length = len(processor.tokenizer(lesson.response).input_ids)
        labels[row, : end - length] = -100
    processor.tokenizer.padding_side = "left"
    return {**batch, "labels": labels}


def batches(
    processor: Qwen2_5_VLProcessor, phase: Phase, pieces: int = 2
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """An endless stream of batches, each in pieces of like length, to save padding.

    A batch itself is a fair sample of all families: batches of one family each teach nothing.
    """
    number = 0
    while True:
        lessons = [lesson(processor, number + i, phase) for i in range(BATCH)]
        number += BATCH
        lessons.sort(key=lambda each: len(each.prompt) // 8 + len(each.response))
        step = BATCH // pieces
        yield [collate(processor, lessons[i : i + step]) for i in range(0, BATCH, step)]


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    phase: Phase,
    folder: Path,
) -> None:
    """AdamW through one phase; the result, and every 400th step, is saved under `folder`."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.rate, total_steps=phase.cycle, pct_start=0.06
    )
    stream = batches(processor, phase)
    model.train()
    started, losses = time.time(), []
    for step in range(1, phase.steps + 1):
        pieces = next(stream)
        for piece in pieces:
            loss = model(**piece).loss / len(pieces)
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
            model = build.model(processor.tokenizer, phase.seed)
        else:
            processor = Qwen2_5_VLProcessor.from_pretrained(before)
            model = Qwen2_5_VLForConditionalGeneration.from_pretrained(before, dtype=torch.float32)
        last = number == len(PHASES)
        folder = arguments.folder
        before = folder if last else folder.with_name(f"{folder.name}-phase{number}")
        train(model, processor, phase, before)


if __name__ == "__main__":
    main()
