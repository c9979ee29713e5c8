"""Make the tiny Qwen2.5-VL that comes with difftrain: configuration, tokenizer, training.

    python tools/pretrain_tiny.py OUT_FOLDER

from_pretrained loads OUT_FOLDER like any Qwen2.5-VL. The shipped weights are what this command gave
on one core in about 95 minutes. OUT_FOLDER.state holds the state of an unfinished run; delete it
afterwards.
"""

import argparse
import copy
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import torch
from pretraining_data import (
    IGNORED,
    MIX,
    MORE_OPTIONS,
    Mixture,
    collate,
    draw_caption,
    draw_lookup,
    draw_question,
    example,
    mathvista_query,
    pool_prompt,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from difftrain.data import prompts
from difftrain.shapes.benchmarks import MATHVISTA_HINTS
from difftrain.shapes.signs import signs

logger = logging.getLogger(__name__)

VOCABULARY_SIZE = 512  # tokens, with the special and the single ones below, without NAMES
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SINGLE_TOKENS = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    '[{"bbox_2d": [',
    '], "label": "tile"}]',
    "Please select the correct answer from the options above.",
    prompts.SYSTEM,
    *MATHVISTA_HINTS.values(),
)
"""Texts that are one token each, because many prompts have them: short prompts run faster."""
NAMES = tuple(sign.name for sign in signs())
"""The names of signs, one token each."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's own template without its default system prompt."""


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """A Qwen2.5-VL of 2.7 million parameters."""
    vocabulary = tokenizer.get_vocab()
    token_id = {name: vocabulary[name] for name in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],  # must sum to half of the head size, 192 / 6
        },
        "tie_word_embeddings": True,
        "bos_token_id": token_id["<|endoftext|>"],
        "eos_token_id": token_id["<|im_end|>"],
        "pad_token_id": token_id["<|endoftext|>"],
    }
    vision = {
        "depth": 3,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": 192,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 56,
        "fullatt_block_indexes": [2],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id["<|image_pad|>"],
        video_token_id=token_id["<|video_pad|>"],
        vision_start_token_id=token_id["<|vision_start|>"],
        vision_end_token_id=token_id["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with Qwen's special tokens, in which each digit is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS) - len(SINGLE_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in SINGLE_TOKENS])
    words = [AddedToken(name, normalized=False, single_word=True) for name in NAMES]
    tokenizer.add_tokens(words)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
    )


def build_processor(texts: Iterator[str], max_pixels: int = 112 * 112) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's own processor, with a tokenizer trained on these texts."""
    tokenizer = train_tokenizer(texts)
    # In spite of these names, Qwen's image processor reads the two values as areas in pixels.
    size = {"shortest_edge": 56 * 56, "longest_edge": max_pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).float()


def save(
    folder: Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    """Write the folder that `from_pretrained` reads, with the processor and bfloat16 weights."""
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)


BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of training: a one-cycle schedule whose learning rate peaks at `learning_rate`."""

    steps: int
    learning_rate: float
    mixture: Mixture


PHASES = (
    Phase(700, 1.2e-3, Mixture(captions=1.0, lookups=0.0, masked=0.0, seed=0)),
    Phase(3500, 1.2e-3, Mixture(captions=0.1, lookups=0.1, masked=0.25, seed=51)),
    Phase(900, 6e-4, Mixture(captions=0.02, lookups=0.1, masked=0.25, seed=52,
                             families=MORE_OPTIONS)),
)  # fmt: skip
"""The first phase trains on captions of images, the second on questions whose rationales name what
the answer depends on, with a share of captions and of lookups among options, the third on more of
the questions that the model learns late. The seeds of the mixtures are arbitrary."""


def corpus(seed: int = 0) -> Iterator[str]:
    """The tokenizer's training text: questions, rationales, syllables of names, short captions."""
    yield "system\nuser\nassistant\n" * 2000  # often enough that the roles become tokens
    for family in MIX:
        rng = Random(family)
        for index in range(60):
            drawn = draw_question(family, index, seed, rng)
            yield pool_prompt(drawn)
            yield mathvista_query(drawn)
            yield drawn.rationale
    for index in range(30):
        drawn = draw_lookup(Random(index))
        yield pool_prompt(drawn)
        yield drawn.rationale
    for index in range(200):
        drawn = draw_caption(Random(index))
        yield drawn.question
        # The caption of a random word has only dots before and after it; it would teach that word.
        if "." not in drawn.answer.strip(".") and " " not in drawn.answer:
            continue
        yield drawn.answer.replace(".", "")


def batches(
    processor: Qwen2_5_VLProcessor, mixture: Mixture, start: int, num_pieces: int = 2
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """Endless batches from number `start` on, each split into pieces of examples of similar length,
    to save padding.

    A batch mixes all families of questions, because training on batches of one family failed.
    """
    for first in count(start * BATCH_SIZE, BATCH_SIZE):
        examples = [example(processor, first + i, mixture) for i in range(BATCH_SIZE)]
        # Order by approximate length: 8 letters of a prompt count as one of a response.
        examples.sort(key=lambda item: len(item.prompt) // 8 + len(item.response))
        size = BATCH_SIZE // num_pieces
        yield [collate(processor, examples[i : i + size]) for i in range(0, BATCH_SIZE, size)]


def loss_sum(
    model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The sum of the cross entropy over the labels."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    return functional.cross_entropy(logits, batch["labels"][:, 1:].flatten(), reduction="sum")


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    number: int,
    state_file: Path,
) -> None:
    """Train phase `number` by AdamW. The state file continues a run that was stopped."""
    phase = PHASES[number]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.learning_rate, total_steps=phase.steps, pct_start=0.05
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["phase"] > number:
            return
        # A state of the phase before has this phase's start.
        names = parts if state["phase"] == number else ["model"]
        for name in names:
            parts[name].load_state_dict(state[name])
        done = state["step"] if state["phase"] == number else 0
    model.train()
    started, losses = time.time(), []
    for step, pieces in enumerate(batches(processor, phase.mixture, done), done + 1):
        if step > phase.steps:
            break
        num_labels = sum(int((piece["labels"] != IGNORED).sum()) for piece in pieces)
        for piece in pieces:
            loss = loss_sum(model, piece) / num_labels
            loss.backward()
            losses.append(loss.item() * len(pieces))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == phase.steps:
            mean, losses = sum(losses) / len(losses), []
            logger.info("step %d loss %.4f seconds %.0f", step, mean, time.time() - started)
            state = {name: part.state_dict() for name, part in parts.items()}
            tmp_path = state_file.with_suffix(".tmp")
            torch.save({"phase": number, "step": step, **state}, tmp_path)
            tmp_path.replace(state_file)


def main() -> None:
    """Build the model and train it phase by phase; the same command continues a stopped run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    processor = build_processor(corpus())
    model = build_model(processor.tokenizer, seed=0)
    for number in range(len(PHASES)):
        train(model, processor, number, folder.with_suffix(".state"))
    save(folder, model, processor)


if __name__ == "__main__":
    main()
