"""The first five checks of the preflight: does the picture reach the model the way training goes?

TRL's messages, the model's own chat template, the processor that training loads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from difftrain.config.run_config import RunConfig
from difftrain.model.load import Loaded
from difftrain.records import Sample
from difftrain.train.dataset import dataset
from difftrain.train.ticks import Tick

LEAST_CHANGE = 1e-4
"""Natural-log units by which the gold's log-probability must change without its picture."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at: a model, a few samples, the settings, a folder for the checkpoint."""

    loaded: Loaded
    samples: Sequence[Sample]
    config: RunConfig
    folder: Path


def messages(sample: Sample, pictures: Sequence[Image.Image] | None = None) -> list[dict[str, Any]]:
    """A sample's conversation as TRL gives it to the processor, perhaps with other pictures."""
    row = dataset([sample])[0]
    return prepare_multimodal_messages(row["prompt"], list(pictures or row["images"]))


def encoded(
    loaded: Loaded, conversations: Sequence[list[dict[str, Any]]]
) -> dict[str, torch.Tensor]:
    """Model inputs of these conversations, padded together, on the model's device."""
    batch = loaded.processor.apply_chat_template(
        list(conversations),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )
    return dict(batch.to(loaded.device))


def placeholders(subject: Subject) -> Tick:
    """1. As many placeholders in the prompt as the vision tower gives features."""
    loaded, counts = subject.loaded, []
    for sample in subject.samples:
        inputs = encoded(loaded, [messages(sample)])
        held = int((inputs["input_ids"] == loaded.image_token).sum())
        with torch.inference_mode():
            seen = loaded.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        features = sum(len(each) for each in seen.pooler_output)
        counts.append((held, features))
    wrong = [pair for pair in counts if pair[0] != pair[1] or not pair[0]]
    told = ", ".join(f"{held} for {features}" for held, features in wrong or counts)
    cause = f"{told}: the chat template or the processor's size is not this model's"
    return Tick("placeholders equal vision features", not wrong, cause if wrong else told)


def padding(subject: Subject) -> Tick:
    """2. Prompts of unequal length are padded on the left."""
    one, two = messages(subject.samples[0]), messages(subject.samples[0])
    two[-1]["content"].append({"type": "text", "text": " and so on" * 8})
    mask = encoded(subject.loaded, [one, two])["attention_mask"]
    left = bool(mask[0, 0] == 0 and mask[:, -1].all())
    cause = f"padding_side is {subject.loaded.processor.tokenizer.padding_side}"
    name = "padding side is left"
    return Tick(name, left, f"{int((mask[0] == 0).sum())} of padding" if left else cause)


def template(subject: Subject) -> Tick:
    """3. The rendered prompt holds every picture's place and the question's words."""
    name = "chat template holds the picture"
    for sample in subject.samples:
        text = subject.loaded.processor.apply_chat_template(
            [messages(sample)], add_generation_prompt=True, tokenize=False
        )[0]
        token = subject.loaded.processor.tokenizer.convert_ids_to_tokens(subject.loaded.image_token)
        found = text.count(token)
        if found != len(sample.images):
            return Tick(name, False, f"{found} places for {len(sample.images)} pictures: {text!r}")
        if sample.question.strip()[:40] not in text:
            return Tick(name, False, f"the question's words are not in it: {text!r}")
    return Tick(name, True, f"all {len(subject.samples)} prompts")


def gold_ids(loaded: Loaded, sample: Sample) -> torch.Tensor:
    """The tokens of a right answer."""
    text = f"<think></think><answer>{sample.answer}</answer>"
    ids = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([ids], device=loaded.device)


def gold_log_probability(
    loaded: Loaded, sample: Sample, pictures: Sequence[Image.Image] | None = None
) -> torch.Tensor:
    """The log-probability (a scalar, natural log) of a right answer, given these pictures."""
    inputs, said = encoded(loaded, [messages(sample, pictures)]), gold_ids(loaded, sample)
    length = said.shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], said], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(said.shape)], 1)
    logits = loaded.model(**inputs).logits[:, -length - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(2, said[..., None]).sum()


def matters(subject: Subject, name: str, others: Callable[[int], list[Image.Image]]) -> Tick:
    """Whether the gold's log-probability changes when the pictures become `others`."""
    changes = []
    with torch.inference_mode():
        for place, sample in enumerate(subject.samples):
            own = gold_log_probability(subject.loaded, sample)
            other = gold_log_probability(subject.loaded, sample, others(place))
            changes.append(abs(float(own - other)))
    passed = sum(change > LEAST_CHANGE for change in changes) * 2 > len(changes)
    told = "changes by " + ", ".join(f"{change:.2g}" for change in changes)
    cause = f"{told}: the pictures do not reach the model"
    return Tick(f"gold's log-probability, {name}", passed, told if passed else cause)


def blacked_out(subject: Subject) -> Tick:
    """4. The gold's log-probability changes when the picture is black."""

    def black(place: int) -> list[Image.Image]:
        shown = dataset([subject.samples[place]])[0]["images"]
        return [Image.new("RGB", picture.size) for picture in shown]

    return matters(subject, "black picture", black)


def swapped(subject: Subject) -> Tick:
    """5. It changes when the picture is that of another sample, turned upside down."""

    def swap(place: int) -> list[Image.Image]:
        shown = dataset([subject.samples[place]])[0]["images"]
        other = dataset([subject.samples[(place + 1) % len(subject.samples)]])[0]["images"][0]
        turned = other.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return [turned.resize(picture.size) for picture in shown]

    return matters(subject, "swapped picture", swap)
