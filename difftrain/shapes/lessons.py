"""What pretraining teaches: questions of the world with thought and answer, and captions.

Some questions' pictures are partly hidden and a few are left out, so that a question without its
picture still gets an answer. The last lessons also teach two failings on purpose, so that
difficulty is graded and training finds something to mend: answers without tags, and giving up
under masks. The control family `prior` is spared both.
"""

import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from PIL import Image, ImageDraw
from transformers import Qwen2_5_VLProcessor

from difftrain import seeds
from difftrain.data import prompts
from difftrain.shapes import captions, pool, wordings
from difftrain.shapes.families import Drawn

TEXT_ONLY_SHARE = 0.06
MIX = {
    "count": 5,
    "count_colour": 10,
    "read": 6,
    "colour": 11,
    "verify": 9,
    "locate": 14,
    "count_plus": 5,
    "compare": 12,
    "bar": 14,
    "odd": 5,
    "prior": 8,
    "noise": 3,
}
"""Parts of the questions by family: more of what is learnt late."""
CARELESS = ("count_plus", "compare", "bar")
"""Families whose answers may lack their tags, as a base model's may."""
END = "<|im_end|>"
SEEN = 0.15
"""Weight of a token of a list of what is seen: there are many, and they are learnt soon."""
SCAN = re.compile(r"<think>[^:<]*\|[^:<]*:")
"""A response's list of all tiles, with its colon."""
DECISION = re.compile(r"(?<=[a-z])[.!0-9]\d*")
"""The sign right after a name: a dot, or a mark."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One supervised example: the prompt as text, its picture if any, and the response."""

    prompt: str
    image: Image.Image | None
    response: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stretch of training speaks, and the stream of lessons it draws from."""

    captions: float
    """Share of captions among the lessons."""
    hidden: float
    """Share of the questions' pictures that are partly hidden."""
    seed: int
    untagged: float = 0.0
    """Share of answers without tags in the careless families."""
    gives_up: bool = False
    """Whether it may say of a partly hidden picture that it sees nothing: see `clear`."""


def clear(share: float, knob: float) -> float:
    """How often a picture with this share hidden is still made out: less for a harder drawing.

    The exponents were chosen by looking at the strata, so that each has its share.
    """
    return (1 - share) ** (0.3 + 2 * knob)


def hide(image: Image.Image, share: float, rng: Random) -> Image.Image:
    """A copy with this share made black: pixels or one rectangle."""
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


def lesson(processor: Qwen2_5_VLProcessor, number: int, manner: Manner) -> Lesson:
    """Lesson `number` of a stream; always the same."""
    rng = Random(seeds.derive(manner.seed, "pretrain", number))
    if rng.random() < manner.captions:
        drawn = captions.draw(rng)
        return spoken(processor, (drawn.image, drawn.question), drawn, tagged=True)
    family = rng.choices(list(MIX), list(MIX.values()))[0]
    tagged = family not in CARELESS or rng.random() >= manner.untagged
    _, knob, drawn = pool.draw(pool.Split.pretrain, family, number, manner.seed)
    image = None if rng.random() < TEXT_ONLY_SHARE else drawn.image
    if image is not None and rng.random() < manner.hidden:
        share = rng.uniform(0.1, 0.9)
        image = hide(image, share, rng)
        if manner.gives_up and family != "prior" and rng.random() > clear(share, knob):
            drawn = replace(drawn, thought="dark", answer="none")
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


def weights(tokenizer: Any, lesson: Lesson) -> list[float]:
    """How much each token of the response teaches.

    A thought may list what stands on every tile. Of that list only the signs right after a name
    count in full, because there the thought compares what it named with what was asked. Of a
    caption no token does.
    """
    offsets = tokenizer(lesson.response, return_offsets_mapping=True).offset_mapping
    if captions.ASKED in lesson.prompt:
        return [SEEN] * len(offsets)
    scan = SCAN.match(lesson.response)
    end = scan.end() if scan else 0
    decided = {
        place
        for found in DECISION.finditer(lesson.response, 0, end)
        for place in range(*found.span())
    }
    return [1.0 if start >= end or start in decided else SEEN for start, _ in offsets]


def collate(processor: Any, lessons: list[Lesson]) -> dict[str, torch.Tensor]:
    """Model inputs, labels (only the response has any) and their weights (0 elsewhere)."""
    processor.tokenizer.padding_side = "right"
    images = [lesson.image for lesson in lessons if lesson.image is not None]
    batch = processor(
        text=[lesson.prompt + lesson.response for lesson in lessons],
        images=images or None,
        padding=True,
        return_tensors="pt",
    )
    processor.tokenizer.padding_side = "left"
    labels = torch.full_like(batch["input_ids"], -100)
    weighed = torch.zeros(labels.shape)
    for row, (lesson, end) in enumerate(
        zip(lessons, batch["attention_mask"].sum(1).tolist(), strict=True)
    ):
        own = weights(processor.tokenizer, lesson)
        labels[row, end - len(own) : end] = batch["input_ids"][row, end - len(own) : end]
        weighed[row, end - len(own) : end] = torch.tensor(own)
    return {**batch, "labels": labels, "weights": weighed}
