"""Pretraining examples of the tiny Qwen2.5-VL: questions with rationale and answer, and captions.

The examples are true but for the names of signs (difftrain/shapes/signs.py): as in data from the
web, a disputed sign has its true name in a share of the texts and always the same wrong one,
another sign's, in the others. The model then gives the true name in about that share of its
responses. This is what later training can improve, and it needs many samples, because each sign is
to be learned for itself.

Some images are partly masked, and a few questions have no image, so that the model has seen both.
Their answers are those of the whole image: nothing teaches the model to behave otherwise there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from PIL import Image, ImageDraw
from transformers import Qwen2_5_VLProcessor

from difftrain import seeds
from difftrain.data import prompts
from difftrain.records import AnswerKind
from difftrain.shapes import families, pool, signs
from difftrain.shapes.benchmarks import mathvista_query
from difftrain.shapes.families import (
    COLORS,
    GRID,
    LETTERS,
    LEVELS,
    TILES,
    DrawnSample,
    random_looks,
    random_shift,
    scatter,
)

TEXT_ONLY_SHARE = 0.06  # share of the questions that get no image
MIX = {
    "count": 5,
    "read": 8,
    "sign": 14,
    "signs": 11,
    "verify": 12,
    "locate": 8,
    "count_plus": 5,
    "compare": 5,
    "bar": 8,
    "odd": 6,
    "prior": 7,
    "pick": 14,
    "code": 12,
    "noise": 1,
}
"""How often each family is drawn, relative to the others. `long_code` is left out: it is a skill
that the model lacks."""
MORE_OPTIONS = MIX | {"verify": 20, "compare": 16, "odd": 16, "bar": 16, "pick": 40}
"""More of the families that the model learns late."""
END = "<|im_end|>"
IGNORED = -100  # label of a token without loss, as in transformers
CAPTION_QUESTION = "Describe every tile."


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised example: the prompt as text, its image if any, and the response."""

    prompt: str
    image: Image.Image | None
    response: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """The kinds of examples in a phase of pretraining, and how frequent they are."""

    captions: float
    """Share of captions among the examples."""
    lookups: float
    """Share of questions about nothing but the letters of options."""
    masked: float
    """Share of the questions whose image is partly masked."""
    seed: int
    """Seed of the examples, so that phases have different ones."""
    families: Mapping[str, int] = field(default_factory=lambda: MIX)
    """How often each family is drawn, relative to the others."""


def name_in_text(rng: Random, sign: signs.Sign) -> str:
    """The name that one text gives a sign: a disputed sign's is often its wrong one."""
    assert sign.true_share is not None, "a sign of this rank may not occur in pretraining"
    return sign.name if rng.random() < sign.true_share else sign.alias


def caption_signs(rng: Random) -> tuple[Image.Image, str]:
    """An image of 1 to 16 signs and its caption, with a dot for an empty tile."""
    seen = signs.signs()[: signs.KNOWN + signs.DISPUTED]
    tiles = rng.sample(TILES, rng.randint(1, GRID * GRID))
    placed = [(rng.choice(seen), tile) for tile in tiles]
    names = {tile: name_in_text(rng, sign) for sign, tile in placed}
    return signs.draw_signs(rng, placed), "|".join(names.get(tile, ".") for tile in TILES)


def caption_shapes(rng: Random) -> tuple[Image.Image, str]:
    """An image of shapes on 1 to 16 tiles and its caption, with a dot for an empty tile."""
    objects = scatter(rng, random_looks(rng, rng.randint(1, GRID * GRID)))
    names = {item.tile: f"{item.color} {item.shape}" for item in objects}
    return families.draw_shapes(objects), " ".join(names.get(tile, ".") for tile in TILES)


def caption_letters(rng: Random) -> tuple[Image.Image, str]:
    """An image of a word and its caption, with a dot for an empty tile."""
    length = rng.randint(1, GRID)
    text = "".join(rng.choice(list(LETTERS)) for _ in range(length))
    row, column = rng.randrange(GRID), rng.randint(0, GRID - length)
    shift = random_shift(rng)
    image = families.draw_letters(text, (row, column), rng.uniform(0.7, 1.0), shift)
    num_before = row * GRID + column
    return image, "." * num_before + text + "." * (GRID * GRID - num_before - length)


def caption_bars(rng: Random) -> tuple[Image.Image, str]:
    """An image of bars and its caption: color and height of each bar, from the left."""
    num_bars = rng.randint(2, GRID)
    heights = [rng.randint(1, LEVELS) for _ in range(num_bars)]
    colors = rng.sample(list(COLORS), num_bars)
    image = families.draw_bars(heights, colors, rng.randint(16, 24))
    return image, " ".join(
        f"{color} {height}" for color, height in zip(colors, heights, strict=True)
    )


def draw_caption(rng: Random) -> DrawnSample:
    """An image with a caption as its answer; used for pretraining only.

    From captions a small model learns the contents of images much sooner than from questions,
    because a caption describes all 16 tiles.
    """
    weighted = [caption_signs] * 4 + [caption_shapes] * 2 + [caption_letters, caption_bars]
    image, text = rng.choice(weighted)(rng)
    return DrawnSample(image, CAPTION_QUESTION, "tiles", text, AnswerKind.text)


def draw_lookup(rng: Random) -> DrawnSample:
    """A question for the letters of all four options, in another order; its image is not needed.

    A question of the family `pick` has one such lookup, in which the model learned nothing.
    """
    options = rng.sample([sign.name for sign in signs.signs()], 4)
    lettered = list(zip(options, "ABCD", strict=True))
    rng.shuffle(lettered)
    question = f"Which letters have {' '.join(name for name, _ in lettered)}?"
    rationale = ", ".join(f"{name} {letter}" for name, letter in lettered)
    answer = "".join(letter for _, letter in lettered)
    blank = Image.new("RGB", (families.SIDE, families.SIDE), "white")
    return DrawnSample(blank, question, rationale, answer, AnswerKind.text, tuple(options))


def pool_prompt(drawn: DrawnSample) -> str:
    """The prompt of the training samples; MMStar and MMMU also use it for multiple choice."""
    return prompts.user_text(drawn.question, drawn.options)


def random_prompt(drawn: DrawnSample, rng: Random) -> str:
    """A prompt that fits the question: MathVista's, MMMU's or, mostly, the training samples'."""
    random_number = rng.random()
    is_numeric = drawn.answer_kind in (AnswerKind.number, AnswerKind.count)
    if random_number < 0.2 and (is_numeric or drawn.options):
        return mathvista_query(drawn)
    if random_number < 0.3 and is_numeric:
        return f"Question: {drawn.question}\n"  # MMMU's prompt without options
    return pool_prompt(drawn)


def mask(image: Image.Image, share: float, rng: Random) -> Image.Image:
    """A copy with this share of the image in black: usually random pixels, else one rectangle."""
    width, height = image.size
    masked = image.copy()
    if rng.random() < 0.7:
        pixels = bytes(255 if rng.random() < share else 0 for _ in range(width * height))
        masked.paste((0, 0, 0), mask=Image.frombytes("L", image.size, pixels))
        return masked
    side = share**0.5
    left = rng.randint(0, round(width * (1 - side)))
    top = rng.randint(0, round(height * (1 - side)))
    box = (left, top, left + round(width * side), top + round(height * side))
    ImageDraw.Draw(masked).rectangle(box, fill="black")
    return masked


def draw_question(family: str, number: int, seed: int, rng: Random) -> DrawnSample:
    """A question of a family, with the names that a text gives to its signs."""
    highest = signs.SEEN_SHARE if family in signs.SIGN_FAMILIES else 1.0
    _, _, drawn = pool.draw(pool.Split.pretrain, family, number, seed, 0.0, highest)
    if not drawn.signs:
        return drawn
    names = [name_in_text(rng, signs.signs()[rank]) for rank in drawn.signs]
    rationale, answer = signs.conclude(family, names, drawn.options, drawn.question)
    return replace(drawn, rationale=rationale, answer=answer)


def example(processor: Qwen2_5_VLProcessor, number: int, mixture: Mixture) -> Example:
    """Example number `number` of a mixture; the same at every call."""
    rng = Random(seeds.derive(mixture.seed, "pretrain", number))
    kind = rng.random()
    if kind < mixture.captions:
        drawn = draw_caption(rng)
        return to_example(processor, (drawn.image, drawn.question), drawn)
    if kind < mixture.captions + mixture.lookups:
        drawn = draw_lookup(rng)
        return to_example(processor, (pool_prompt(drawn),), drawn)
    family = rng.choices(list(mixture.families), list(mixture.families.values()))[0]
    drawn = draw_question(family, number, mixture.seed, rng)
    image = None if rng.random() < TEXT_ONLY_SHARE else drawn.image
    if image is not None and rng.random() < mixture.masked:
        image = mask(image, rng.uniform(0.1, 0.9), rng)
    text = random_prompt(drawn, rng)
    return to_example(processor, (text,) if image is None else (image, text), drawn)


def to_example(
    processor: Qwen2_5_VLProcessor, parts: tuple[Any, ...], drawn: DrawnSample
) -> Example:
    """The example whose prompt is `parts`: an image and a text, or only a text."""
    prompt = processor.apply_chat_template(
        prompts.messages(parts), add_generation_prompt=True, tokenize=False
    )
    image = parts[0] if len(parts) == 2 else None
    response = f"<think>{drawn.rationale}</think><answer>{drawn.answer}</answer>{END}"
    return Example(str(prompt), image, response)


def collate(processor: Any, examples: list[Example]) -> dict[str, torch.Tensor]:
    """Model inputs and labels; outside the response a label is -100."""
    processor.tokenizer.padding_side = "right"
    images = [example.image for example in examples if example.image is not None]
    batch = processor(
        text=[example.prompt + example.response for example in examples],
        images=images or None,
        padding=True,
        return_tensors="pt",
    )
    processor.tokenizer.padding_side = "left"  # as the shipped processor has it
    labels = torch.full_like(batch["input_ids"], IGNORED)
    ends = batch["attention_mask"].sum(1).tolist()
    for row, (example, end) in enumerate(zip(examples, ends, strict=True)):
        start = end - len(processor.tokenizer(example.response).input_ids)
        labels[row, start:end] = batch["input_ids"][row, start:end]
    return {**batch, "labels": labels}
