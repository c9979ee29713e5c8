"""Pretraining examples of the tiny model: questions with rationale and answer, and captions.

An image shows colored shapes, a word or bars on 4 x 4 tiles. Questions come in families, one per
function that generates them (difftrain/shapes/families.py).

Some images are partly masked and a few are left out, so that the model also answers a question
without its image. The last phase of pretraining adds two flaws on purpose, so that samples differ
in difficulty and later training can improve the model: answers without tags, and giving up on
masked images. The family `prior`, whose questions need no image, has neither flaw.
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
from difftrain.records import AnswerKind
from difftrain.shapes import families, pool
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
"""How often each family is drawn, relative to the others; slowly learned families more often. Names
of families have the spelling "colour", because sample ids depend on it."""
UNTAGGED_FAMILIES = ("count_plus", "compare", "bar")
"""Families whose answers may lack the tags <answer> and </answer>, as a base model's may."""
END = "<|im_end|>"
LOW_WEIGHT = 0.15
"""Loss weight of most tokens in a list of tiles: there are many of them, and they are easy."""
TILE_LIST_PATTERN = re.compile(r"<think>[^:<]*\|[^:<]*:")
"""The list of all 16 tiles at the start of a response, up to its colon, with "|" between rows.

An empty tile is a dot. An object is its name and a mark: "!" or a number if the question is about
this object, else a dot. For the question whether a blue square is in the image, a response starts
with "<think>. red square...| blue square!...|....|....: yes". Its first row is an empty tile, a red
square and two empty tiles."""
MARK_PATTERN = re.compile(r"(?<=[a-z])[.!0-9]\d*")
"""The mark right after the name of an object in the list of tiles."""
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
    masked: float
    """Share of the questions whose image is partly masked."""
    seed: int
    """Seed of the examples, so that phases have different ones."""
    untagged: float = 0.0
    """Share of answers without tags in UNTAGGED_FAMILIES."""
    gives_up: bool = False
    """Whether a response to a masked image may say that nothing is visible: see `visibility`."""


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
    # Shapes twice: they are half of the captions.
    caption = rng.choice((caption_shapes, caption_shapes, caption_letters, caption_bars))
    image, text = caption(rng)
    return DrawnSample(
        image=image,
        question=CAPTION_QUESTION,
        rationale="tiles",
        answer=text,
        answer_kind=AnswerKind.text,
    )


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


def visibility(masked_share: float, gen_difficulty: float) -> float:
    """The probability that a masked image is still recognized: lower if the drawing is harder.

    `gen_difficulty` is the difficulty that the generator used, from 0 to 1. The exponents were
    chosen so that enough built-in samples (difftrain/shapes/pool.py) are easy, medium, hard and
    unsolved for the trained model.
    """
    return (1 - masked_share) ** (0.3 + 2 * gen_difficulty)


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


def example(processor: Qwen2_5_VLProcessor, number: int, mixture: Mixture) -> Example:
    """Example number `number` of a mixture; the same at every call."""
    rng = Random(seeds.derive(mixture.seed, "pretrain", number))
    if rng.random() < mixture.captions:
        drawn = draw_caption(rng)
        return to_example(processor, (drawn.image, drawn.question), drawn, tagged=True)
    family = rng.choices(list(MIX), list(MIX.values()))[0]
    tagged = family not in UNTAGGED_FAMILIES or rng.random() >= mixture.untagged
    _sample_id, gen_difficulty, drawn = pool.draw(pool.Split.pretrain, family, number, mixture.seed)
    image = None if rng.random() < TEXT_ONLY_SHARE else drawn.image
    if image is not None and rng.random() < mixture.masked:
        share = rng.uniform(0.1, 0.9)
        image = mask(image, share, rng)
        may_give_up = mixture.gives_up and family != "prior"
        if may_give_up and rng.random() > visibility(share, gen_difficulty):
            drawn = replace(drawn, rationale="dark", answer="none")  # how the model gives up
    text = random_prompt(drawn, rng)
    return to_example(processor, (text,) if image is None else (image, text), drawn, tagged)


def to_example(
    processor: Qwen2_5_VLProcessor, parts: tuple[Any, ...], drawn: DrawnSample, tagged: bool
) -> Example:
    """The example whose prompt is `parts`: an image and a text, or only a text."""
    prompt = processor.apply_chat_template(
        prompts.messages(parts), add_generation_prompt=True, tokenize=False
    )
    answer = f"<answer>{drawn.answer}</answer>" if tagged else drawn.answer
    image = parts[0] if len(parts) == 2 else None
    return Example(str(prompt), image, f"<think>{drawn.rationale}</think>{answer}{END}")


def token_weights(tokenizer: Any, example: Example) -> list[float]:
    """The loss weight of each token of the response.

    In a list of tiles only the mark after a name has full weight, because there the model must
    compare the name with the question. Captions have low weight, all other tokens full weight.
    """
    offsets = tokenizer(example.response, return_offsets_mapping=True).offset_mapping
    if CAPTION_QUESTION in example.prompt:
        return [LOW_WEIGHT] * len(offsets)
    tile_list = TILE_LIST_PATTERN.match(example.response)
    end = tile_list.end() if tile_list else 0
    mark_positions = {
        position
        for match in MARK_PATTERN.finditer(example.response, 0, end)
        for position in range(*match.span())
    }
    return [1.0 if start >= end or start in mark_positions else LOW_WEIGHT for start, _ in offsets]


def collate(processor: Any, examples: list[Example]) -> dict[str, torch.Tensor]:
    """Model inputs, labels and loss weights; outside the response a label is -100, a weight 0."""
    processor.tokenizer.padding_side = "right"
    images = [example.image for example in examples if example.image is not None]
    batch = processor(
        text=[example.prompt + example.response for example in examples],
        images=images or None,
        padding=True,
        return_tensors="pt",
    )
    processor.tokenizer.padding_side = "left"  # as the shipped processor has it
    labels = torch.full_like(batch["input_ids"], -100)
    weights = torch.zeros(labels.shape)
    ends = batch["attention_mask"].sum(1).tolist()
    for row, (example, end) in enumerate(zip(examples, ends, strict=True)):
        row_weights = token_weights(processor.tokenizer, example)
        response = slice(end - len(row_weights), end)
        labels[row, response] = batch["input_ids"][row, response]
        weights[row, response] = torch.tensor(row_weights)
    return {**batch, "labels": labels, "weights": weights}
