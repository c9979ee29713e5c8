"""Eight checks on a few samples that prove, before hours are spent, that a model can be trained.

The first five, about pictures, are in sight.py. Not here: who runs it and when
(recipes/preflight.py).
"""

import shutil
from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList

from difftrain.model.generate.gumbel import DrawOwnNoise
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.train import lora, modules, sight
from difftrain.train.arguments import banned
from difftrain.train.sight import Subject, encoded, gold_log_probability, messages
from difftrain.train.ticks import Tick

WHOLE_BYTES = 1 << 30
"""Models up to this size are written and read whole; of larger ones, this much."""
OPTIMIZER_BYTES = 8
"""Adam's two moments, for each trained parameter of a checkpoint that training continues from."""
ADDITION_BYTES = 4
"""LoRA's additions are float32."""
TROUBLES = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, OSError)
"""What a library may raise at a model that does not fit; told as the check's cause."""


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
    """7. In each stage the parts that it trains get a gradient, and the frozen ones do not."""
    told, wrong = [], []
    for stage in subject.config.stages:
        parts, bad = learning(subject, stage)
        before = f"{stage}: " if len(subject.config.stages) > 1 else ""
        told.append(before + ", ".join(parts))
        wrong += [before + each for each in bad]
    return Tick("trained and frozen parts as configured", not wrong, "; ".join(wrong or told))


def learning(subject: Subject, name: str) -> tuple[list[str], list[str]]:
    """What one stage does with each part, and what is wrong with it."""
    model, stage = subject.loaded.model, getattr(subject.config, name)
    frozen = {*modules.VISION_PARTS} if stage.freeze_vision else set()
    with lora.as_trained(name, stage, subject.config.model, model):
        last = {
            modules.part_of(key): each
            for key, each in model.named_parameters()
            if each.ndim > 1 and each.requires_grad
        }
        loss = gold_log_probability(subject.loaded, subject.samples[0])
        found = torch.autograd.grad(loss, list(last.values()), allow_unused=True)
        table = list(modules.counted(model))
    reached = {
        part: gradient is not None and bool(gradient.isfinite().all() and gradient.any())
        for part, gradient in zip(last, found, strict=True)
    }
    wrong = [f"{part} is trained" for part in frozen & last.keys()]
    wrong += [f"{part} gets no gradient" for part, there in reached.items() if not there]
    word = "by LoRA ({:,} of {:,})" if stage.lora.rank else "trained"
    if not stage.lora.rank:  # which trains those parts that have its targets
        wrong += [f"{part} is not trained" for part, _, n in table if part not in frozen and not n]
    parts = [f"{part} {word.format(n, all_) if n else 'frozen'}" for part, all_, n in table]
    return parts, wrong


def space(subject: Subject, name: str, size: int) -> int:
    """Bytes that one stage's checkpoints take, of a model of `size` bytes.

    Two to continue from, with the optimizer's state of what is trained, and the last. Of LoRA they
    hold the additions alone (float32), and the last a merged model and the additions beside it.
    """
    model, stage = subject.loaded.model, getattr(subject.config, name)
    with lora.as_trained(name, stage, subject.config.model, model):
        trained = sum(number for _, _, number in modules.counted(model))
    weights = 3 * ADDITION_BYTES * trained + size if stage.lora.rank else 3 * size
    return weights + 2 * OPTIMIZER_BYTES * trained


def checkpoint(subject: Subject) -> Tick:
    """8. A checkpoint can be written where the run writes, and read again unchanged."""
    model, name = subject.loaded.model, "a checkpoint can be written and loaded"
    weights = model.state_dict()
    size = sum(each.numel() * each.element_size() for each in weights.values())
    needed = max(space(subject, stage, size) for stage in subject.config.stages)
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
    "placeholders equal vision features": sight.placeholders,
    "padding side is left": sight.padding,
    "chat template holds the picture": sight.template,
    "gold's log-probability, black picture": sight.blacked_out,
    "gold's log-probability, swapped picture": sight.swapped,
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
