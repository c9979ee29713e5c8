"""Eight checks on a few samples that prove, before hours are spent, that a model can be trained.

Everything goes the way that training goes: TRL's messages, the model's own chat template, the
processor that training loads. Not here: who runs it and when (recipes/preflight.py).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList
from trl.data_utils import prepare_multimodal_messages

from difftrain.model.generate.gumbel import DrawOwnNoise
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.model.load import Loaded
from difftrain.records import Sample
from difftrain.settings import RunConfig
from difftrain.train import modules
from difftrain.train.arguments import banned
from difftrain.train.dataset import dataset
from difftrain.train.ticks import Tick

LEAST_CHANGE = 1e-4
"""Natural-log units by which the gold's log-probability must change without its picture."""
WHOLE_BYTES = 1 << 30
"""Models up to this size are written and read whole; of larger ones, this much."""
OPTIMIZER_BYTES = 8
"""Adam's two moments, for each trained parameter of a checkpoint that training continues from."""
TROUBLES = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, OSError)
"""What a library may raise at a model that does not fit; told as the check's cause."""


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


class Tempt:
    """A logits processor that makes some tokens all but certain unless they are banned."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape B V; what is minus infinity stays so."""
        scores[:, self.ids] += 1e4
        return scores


def sampling(subject: Subject) -> Tick:
    """6. Neither training's sampling nor the probe's can produce a picture placeholder."""
    loaded, name = subject.loaded, "sampling cannot produce placeholders"
    known = loaded.processor.tokenizer.get_vocab()
    ids = {known[token] for token in PLACEHOLDERS if token in known}
    named = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids |= {
        value for key in named if (value := getattr(loaded.model.config, key, None)) is not None
    }
    inputs = encoded(loaded, [messages(subject.samples[0])])
    width = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        output = loaded.model.generate(
            **inputs,
            **banned(known),
            max_new_tokens=4,
            do_sample=False,
            logits_processor=LogitsProcessorList([Tempt(sorted(ids))]),
        )
    made = ids & set(output[0, width:].tolist())
    probes = DrawOwnNoise([0], [1.0], 1, [known[t] for t in PLACEHOLDERS if t in known])
    tempting = torch.zeros(1, max(ids | {1}) + 1)
    tempting[:, sorted(ids)] = 1e4
    left = {token for token in ids if probes(torch.zeros(1, 1), tempting)[0, token] > -torch.inf}
    told = loaded.processor.tokenizer.convert_ids_to_tokens(sorted(made | left))
    cause = f"can be sampled: {', '.join(map(str, told))}"
    return Tick(name, not told, cause if told else f"{len(ids)} tokens are banned")


def trained_modules(subject: Subject) -> Tick:
    """7. The parts that the settings train get a gradient, and the frozen ones do not."""
    model, name = subject.loaded.model, "trained and frozen parts as configured"
    before = {key: each.requires_grad for key, each in model.named_parameters()}
    frozen = {"vision tower", "projector"} if subject.config.grpo.freeze_vision else set()
    try:
        if frozen:
            modules.freeze_vision(model)
        last = {
            modules.part_of(key): each
            for key, each in model.named_parameters()
            if each.ndim > 1 and each.requires_grad
        }
        loss = gold_log_probability(subject.loaded, subject.samples[0])
        found = torch.autograd.grad(loss, list(last.values()), allow_unused=True)
        table = list(modules.counted(model))
    finally:
        for key, each in model.named_parameters():
            each.requires_grad_(before[key])
    reached = {
        part: gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        for part, gradient in zip(last, found, strict=True)
    }
    wrong = [f"{part} is trained" for part in frozen & last.keys()]
    wrong += [f"{part} gets no gradient" for part, there in reached.items() if not there]
    wrong += [
        f"{part} is not trained" for part, _, trained in table if part not in frozen and not trained
    ]
    told = ", ".join(f"{part} {'trained' if trained else 'frozen'}" for part, _, trained in table)
    return Tick(name, not wrong, "; ".join(wrong) or told)


def checkpoint(subject: Subject) -> Tick:
    """8. A checkpoint can be written where the run writes, and read again unchanged."""
    model, name = subject.loaded.model, "a checkpoint can be written and loaded"
    weights = model.state_dict()
    size = sum(each.numel() * each.element_size() for each in weights.values())
    needed = 3 * size + 2 * OPTIMIZER_BYTES * sum(each.numel() for each in model.parameters())
    subject.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(subject.folder).free
    if free < needed:
        told = f"{needed / 1e9:.1f} GB are needed under {subject.folder}, {free / 1e9:.1f} are free"
        return Tick(name, False, told)
    trial = subject.folder / ".trial"
    try:
        subject.loaded.processor.save_pretrained(trial)
        AutoProcessor.from_pretrained(trial)
        if size <= WHOLE_BYTES:
            model.save_pretrained(trial)
            again = AutoModelForImageTextToText.from_pretrained(trial, dtype=model.dtype)
            read = again.state_dict()
        else:
            part, weights = weights, {}
            for key, each in part.items():
                if sum(held.nbytes for held in weights.values()) + each.nbytes <= WHOLE_BYTES:
                    weights[key] = each
            torch.save(weights, trial / "part.pt")
            read = torch.load(trial / "part.pt", weights_only=True)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    changed = [key for key in weights if not torch.equal(weights[key].cpu(), read[key].cpu())]
    told = f"{len(weights)} tensors, {sum(each.nbytes for each in weights.values()) / 1e6:.0f} MB"
    return Tick(name, not changed, f"read back otherwise: {changed[:3]}" if changed else told)


CHECKS: dict[str, Callable[[Subject], Tick]] = {
    "placeholders equal vision features": placeholders,
    "padding side is left": padding,
    "chat template holds the picture": template,
    "gold's log-probability, black picture": blacked_out,
    "gold's log-probability, swapped picture": swapped,
    "sampling cannot produce placeholders": sampling,
    "trained and frozen parts as configured": trained_modules,
    "a checkpoint can be written and loaded": checkpoint,
}


def ticks(subject: Subject) -> list[Tick]:
    """All eight, whether or not one fails; what a library raises is the cause of its check."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append(check(subject))
        except TROUBLES as error:
            found.append(Tick(name, False, f"{type(error).__name__}: {error}"))
    return found
