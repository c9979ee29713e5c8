"""Generation in this process with transformers, in batches of like length."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from difftrain.data import prompts
from difftrain.model.generate.gumbel import DrawOwnNoise
from difftrain.model.generate.request import Answer, Request
from difftrain.model.load import Loaded

PLACEHOLDERS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def encode(loaded: Loaded, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
    """Left-padded model inputs on the model's device.

    Raises ValueError if the placeholders in the prompt are not the pictures' tokens.
    """
    processor = loaded.processor
    texts = [
        processor.apply_chat_template(
            prompts.messages(request.parts, request.system),
            add_generation_prompt=True,
            tokenize=False,
        )
        for request in requests
    ]
    images = [image for request in requests for image in request.images]
    batch = processor(text=texts, images=images or None, padding=True, return_tensors="pt")
    merge = processor.image_processor.merge_size**2
    features = int(batch["image_grid_thw"].prod(1).sum()) // merge if images else 0
    placeholders = int((batch["input_ids"] == loaded.image_token).sum())
    if features != placeholders:
        raise ValueError(f"{placeholders} picture placeholders for {features} picture tokens")
    return dict(batch.to(loaded.device))


def settings(loaded: Loaded, longest: int) -> GenerationConfig:
    """Greedy decoding with nothing inherited from the model's own generation defaults."""
    tokenizer = loaded.processor.tokenizer
    return GenerationConfig(
        max_new_tokens=longest,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=loaded.model.generation_config.eos_token_id or tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def ends(loaded: Loaded) -> set[int]:
    """The token ids that end an answer."""
    found = loaded.model.generation_config.eos_token_id or loaded.processor.tokenizer.eos_token_id
    return set(found) if isinstance(found, list) else {found}


def read(loaded: Loaded, ids: list[int], longest: int) -> Answer:
    """An answer from generated token ids: cut at the end token, or at the request's own limit."""
    stops = ends(loaded)
    ids = ids[:longest]
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    kept = ids if end is None else ids[: end + 1]
    text = loaded.processor.tokenizer.decode(kept, skip_special_tokens=True)
    return Answer(text, tuple(kept), end is not None)


@torch.inference_mode()
def answer_batch(loaded: Loaded, requests: Sequence[Request]) -> list[Answer]:
    """One batch of answers, in the order of the requests."""
    inputs = encode(loaded, requests)
    width = inputs["input_ids"].shape[1]
    tokenizer = loaded.processor.tokenizer
    known = tokenizer.get_vocab()
    sampler = DrawOwnNoise(
        [request.seed for request in requests],
        [request.temperature for request in requests],
        width,
        [known[token] for token in PLACEHOLDERS if token in known],
    )
    longest = max(request.max_new_tokens for request in requests)
    output = loaded.model.generate(
        **inputs, generation_config=settings(loaded, longest), logits_processor=[sampler]
    )
    rows = output[:, width:].tolist()
    return [
        read(loaded, ids, request.max_new_tokens)
        for ids, request in zip(rows, requests, strict=True)
    ]


def answers(loaded: Loaded, requests: Sequence[Request], batch_size: int) -> list[Answer]:
    """Answers in the order of the requests; requests of like length share a batch."""
    order = sorted(
        range(len(requests)),
        key=lambda place: (
            len(requests[place].images),
            requests[place].text[:24],
            len(requests[place].text),
        ),
    )
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = answer_batch(loaded, [requests[place] for place in places])
        found.update(zip(places, batch, strict=True))
    return [found[place] for place in range(len(requests))]
