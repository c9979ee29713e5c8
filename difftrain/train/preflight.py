"""Ten checks on a few samples that show, before hours are spent, that a model can be trained.

The first five test that images reach the model the way training feeds them: TRL's messages, the
model's own chat template, the processor that training loads. Axes: 1 batch of one, T tokens.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList
from trl.data_utils import prepare_multimodal_messages

from difftrain import images
from difftrain.config.model import ModelConfig
from difftrain.config.train import GrpoConfig, SftConfig
from difftrain.data import prompts
from difftrain.model import chat_format, family, family_check
from difftrain.model.engines.hf import noisy_logits
from difftrain.model.family_check import CheckResult
from difftrain.model.loading import LoadedModel
from difftrain.records import Sample
from difftrain.train import PreflightFailed, param_groups
from difftrain.train.dataset import chat_prompt, decoded_images
from difftrain.train.trl_args import placeholder_ban

logger = logging.getLogger(__name__)
NUM_SAMPLES = 4  # on which the model is checked
MIN_CHANGE = 1e-4  # nats by which the gold's log-probability must change with another image
ROUND_TRIP_BYTES = 1 << 30
"""A model up to this size is written and read back whole; of a larger model, this many bytes."""
# What a library may raise for a model that does not fit; reported as the check's detail.
LIBRARY_ERRORS = (ValueError, RuntimeError, TypeError, LookupError, AttributeError, OSError)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is checked: a model, a few samples, the settings by stage, a folder to write to."""

    loaded: LoadedModel
    samples: Sequence[Sample]
    model: ModelConfig
    stages: Mapping[str, GrpoConfig | SftConfig]
    folder: Path


def results_table(results: Mapping[str, CheckResult]) -> str:
    """The results as text, one line each."""
    width = max(map(len, results), default=0)
    return "\n".join(
        f"{'✓' if result.passed else '✗'}  {name:<{width}}  {result.detail}"
        for name, result in results.items()
    )


def failure_message(results: Mapping[str, CheckResult]) -> str | None:
    """The message of a failed preflight; None if all checks passed."""
    causes = [f"  {name}: {result.detail}" for name, result in results.items() if not result.passed]
    if not causes:
        return None
    headline = f"{len(causes)} of {len(results)} preflight checks failed"
    return "\n".join([f"{headline}:", *causes, "", results_table(results)])


def require_trainable(candidate: Candidate) -> dict[str, CheckResult]:
    """Run all checks on NUM_SAMPLES samples of various tasks. Raises PreflightFailed on failure."""
    with_images = [sample for sample in candidate.samples if sample.images]
    if not with_images:
        raise PreflightFailed("no sample has an image, so the model cannot be checked")
    first_of_task = {sample.task: sample for sample in reversed(with_images)}
    # The first sample of each task, then the other samples, both in their original order.
    varied = sorted(with_images, key=lambda sample: first_of_task[sample.task] is not sample)
    started = time.time()
    results = run_checks(replace(candidate, samples=varied[:NUM_SAMPLES]))
    if message := failure_message(results):
        raise PreflightFailed(message)
    logger.info("preflight, %.1f s\n%s", time.time() - started, results_table(results))
    return results


def trl_messages(sample: Sample, images: list[Image.Image] | None = None) -> list[dict[str, Any]]:
    """A sample's conversation as TRL gives it to the processor; `images` replace its own."""
    return prepare_multimodal_messages(chat_prompt(sample), images or decoded_images(sample))


def encode(loaded: LoadedModel, conversations: list[Any]) -> dict[str, torch.Tensor]:
    """The model's inputs for these conversations, padded together, on the model's device."""
    batch = loaded.processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )
    return dict(batch.to(loaded.device))


def check_placeholders(candidate: Candidate) -> CheckResult:
    """1. The prompt has one image placeholder for each feature that the vision tower outputs."""
    loaded, counts = candidate.loaded, []
    for sample in candidate.samples:
        inputs = encode(loaded, [trl_messages(sample)])
        with torch.inference_mode():
            features = family.image_features(loaded.model, inputs)
        placeholders = int((inputs["input_ids"] == loaded.image_token).sum())
        counts.append((placeholders, features))
    wrong = [pair for pair in counts if pair[0] != pair[1] or not pair[0]]
    detail = ", ".join(f"{placeholders} for {n} features" for placeholders, n in wrong or counts)
    side = family.token_side(loaded.processor.image_processor)
    sizes = {images.png_size(png) for sample in candidate.samples for png in sample.images}
    if side and any(width % side or height % side for width, height in sizes):
        detail += f"; the processor resizes images again, to multiples of {side} pixels"
    if wrong:
        detail += ": the chat template or the processor's image size does not fit this model"
    return CheckResult(not wrong, detail)


def check_padding(candidate: Candidate) -> CheckResult:
    """2. Prompts of unequal length are padded on the left."""
    short, long = (trl_messages(candidate.samples[0]) for _ in range(2))
    long[-1]["content"].append({"type": "text", "text": " and so on" * 8})
    mask = encode(candidate.loaded, [short, long])["attention_mask"]
    if mask[0, 0] == 0 and mask[:, -1].all():
        return CheckResult(True, f"{int((mask[0] == 0).sum())} tokens of padding")
    side = candidate.loaded.processor.tokenizer.padding_side
    return CheckResult(False, f"padding_side is {side}")


def check_template(candidate: Candidate) -> CheckResult:
    """3. The rendered prompt has a placeholder for every image, and the question's text."""
    processor = candidate.loaded.processor
    # The text that the processor replaces by image tokens; in Gemma 3 it is another token.
    token = family.image_placeholder(processor)
    token = token or processor.tokenizer.convert_ids_to_tokens(candidate.loaded.image_token)
    for sample in candidate.samples:
        (text,) = processor.apply_chat_template(
            [trl_messages(sample)], add_generation_prompt=True, tokenize=False
        )
        counts = text.count(token), len(sample.images)
        if counts[0] != counts[1]:
            return CheckResult(False, "{} placeholders for {} images: {!r}".format(*counts, text))
        if sample.question.strip()[:40] not in text:  # the start is enough
            return CheckResult(False, f"the prompt lacks the question: {text!r}")
        if prompts.SYSTEM not in text:
            return CheckResult(False, f"the template drops the system prompt: {text!r}")
    return CheckResult(True, f"all {len(candidate.samples)} prompts")


def gold_log_probability(
    loaded: LoadedModel, sample: Sample, images: list[Image.Image] | None = None
) -> torch.Tensor:
    """The log-probability (a scalar, nats) of the gold answer, given these images."""
    text = f"<think></think><answer>{sample.answer}</answer>"
    text = text.removeprefix(chat_format.thought_prefix(loaded.processor))
    token_ids = loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    gold_1T = torch.tensor([token_ids], device=loaded.device)
    prompt = encode(loaded, [trl_messages(sample, images)])
    inputs = family_check.with_response(prompt, token_ids)
    logits = loaded.model(**inputs).logits[:, -gold_1T.shape[1] - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(2, gold_1T[..., None]).sum()


def _check_images_matter(
    candidate: Candidate, replacement: Callable[[Image.Image, int], Image.Image]
) -> CheckResult:
    """Whether replaced images change the gold answer's log-probability for most samples."""
    changes = []
    with torch.inference_mode():
        for index, sample in enumerate(candidate.samples):
            images = [replacement(image, index) for image in decoded_images(sample)]
            original = gold_log_probability(candidate.loaded, sample)
            replaced = gold_log_probability(candidate.loaded, sample, images)
            changes.append(abs(float(original - replaced)))
    passed = sum(change > MIN_CHANGE for change in changes) * 2 > len(changes)
    detail = "changes by " + ", ".join(f"{change:.2g}" for change in changes)
    return CheckResult(passed, detail + ("" if passed else ": the images do not reach the model"))


def check_black_image(candidate: Candidate) -> CheckResult:
    """4. The gold answer's log-probability changes when the image is black."""
    return _check_images_matter(candidate, lambda image, _: Image.new("RGB", image.size))


def check_swapped_image(candidate: Candidate) -> CheckResult:
    """5. The log-probability also changes when another sample's image, upside down, is shown."""

    def swapped(image: Image.Image, index: int) -> Image.Image:
        other_image = decoded_images(candidate.samples[(index + 1) % len(candidate.samples)])[0]
        return other_image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(image.size)

    return _check_images_matter(candidate, swapped)


def check_sampling(candidate: Candidate) -> CheckResult:
    """6. Neither training's sampling nor the probe's can produce an image placeholder."""
    loaded, tokenizer = candidate.loaded, candidate.loaded.processor.tokenizer
    banned = loaded.banned
    inputs = encode(loaded, [trl_messages(candidate.samples[0])])
    # Also the special tokens that the image itself puts into the prompt, whatever their names.
    text_only = encode(loaded, [prepare_multimodal_messages(chat_prompt(candidate.samples[0]))])
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    of_image = {*inputs["input_ids"][0].tolist()} - {*text_only["input_ids"][0].tolist()}
    ids = sorted({*banned.values(), *(of_image & special)})

    def favor(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Make sampling pick one of `ids`; a banned token stays at minus infinity."""
        scores[:, ids] += 1e4
        return scores

    ban, favored = placeholder_ban(banned), LogitsProcessorList([favor])
    with torch.inference_mode():
        output = loaded.model.generate(
            **inputs, **ban, max_new_tokens=4, do_sample=False, logits_processor=favored
        )
    generated = set(output[0, inputs["input_ids"].shape[1] :].tolist())
    scores = torch.zeros(1, max(1, *ids) + 1)
    scores[:, ids] = 1e4
    sampling = [(0, 0, 1.0)]  # seed, position and temperature of the only row
    allowed = noisy_logits(scores, sampling, list(banned.values()))[0] > -torch.inf
    possible = [id_ for id_ in ids if id_ in generated or allowed[id_]]
    if possible:
        names = map(str, tokenizer.convert_ids_to_tokens(possible))
        return CheckResult(False, f"can be sampled: {', '.join(names)}")
    return CheckResult(True, f"{len(ids)} tokens are banned")


@contextmanager
def _trainable_as(candidate: Candidate, stage: str) -> Iterator[None]:
    """Add LoRA and freeze parts as this stage does (or raise its errors); undo it on exit."""
    model, settings = candidate.loaded.model, candidate.stages[stage]
    required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    adapter = param_groups.peft_config(stage, settings.lora, candidate.model)
    adapted = None
    try:
        if adapter is not None:
            adapted = LoraModel(model, adapter, "preflight")
        if settings.freeze_vision:
            param_groups.freeze_vision(model)
        yield
    finally:
        if adapted is not None:
            adapted.unload()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required_grad[name])


def check_trained_parts(candidate: Candidate) -> CheckResult:
    """7. In each stage the trained parts get a gradient, and the frozen ones do not."""
    model, details, problems = candidate.loaded.model, [], []
    for stage, settings in candidate.stages.items():
        frozen = {*param_groups.VISION_PARTS} if settings.freeze_vision else set()
        with _trainable_as(candidate, stage):
            trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
            part_of = family.parts(model)
            last_matrix = {part_of[name]: p for name, p in trained if p.ndim > 1}  # by part
            loss = gold_log_probability(candidate.loaded, candidate.samples[0])
            gradients = torch.autograd.grad(loss, list(last_matrix.values()), allow_unused=True)
            counts = param_groups.count_parameters(model)
        parts = {part for part, _, _ in counts}
        wrong = [f"{part} was not found" for part in family.PARTS[:3] if part not in parts]
        wrong += [f"{part} must be frozen but is trained" for part in frozen & last_matrix.keys()]
        wrong += [
            f"{part} gets no gradient"
            for part, gradient in zip(last_matrix, gradients, strict=True)
            if gradient is None or not bool(gradient.isfinite().all() and gradient.any())
        ]
        text = "by LoRA ({:,} of {:,})" if settings.lora.rank else "trained"
        if not settings.lora.rank:  # LoRA trains only the parts that have its target modules
            untrained = [part for part, _, num_trained in counts if not num_trained]
            wrong += [f"{part} is not trained" for part in untrained if part not in frozen]
        parts = [f"{part} {text.format(n, total) if n else 'frozen'}" for part, total, n in counts]
        prefix = f"{stage}: " if len(candidate.stages) > 1 else ""
        details.append(prefix + ", ".join(parts))
        problems += [prefix + problem for problem in wrong]
    return CheckResult(not problems, "; ".join(problems or details))


def checkpoint_bytes(candidate: Candidate, stage: str, model_bytes: int) -> int:
    """Bytes that the three checkpoints of one stage take: two to resume from, and the final one.

    The two to resume from also hold Adam's two moments (8 bytes per trained parameter). With LoRA
    they hold only the adapter (float32), and the final checkpoint holds both model and adapter.
    """
    with _trainable_as(candidate, stage):
        trained = sum(n for _, _, n in param_groups.count_parameters(candidate.loaded.model))
    by_lora = candidate.stages[stage].lora.rank > 0
    weights = 3 * 4 * trained + model_bytes if by_lora else 3 * model_bytes
    return weights + 2 * 8 * trained


def check_checkpoint(candidate: Candidate) -> CheckResult:
    """8. A checkpoint can be written to the run's disk and read back unchanged."""
    model, folder = candidate.loaded.model, candidate.folder
    weights = model.state_dict()
    size = sum(tensor.nbytes for tensor in weights.values())
    needed = max(checkpoint_bytes(candidate, stage, size) for stage in candidate.stages)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = f"{needed / 1e9:.1f} GB are needed under {folder}, {free / 1e9:.1f} are free"
        return CheckResult(False, problem)
    tmp_path = folder / ".trial"
    try:
        candidate.loaded.processor.save_pretrained(tmp_path)
        AutoProcessor.from_pretrained(tmp_path)
        if size <= ROUND_TRIP_BYTES:
            model.save_pretrained(tmp_path)
            saved = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=model.dtype)
            written, read = weights, saved.state_dict()
        else:
            written, total = {}, 0
            for key, tensor in weights.items():
                if total + tensor.nbytes <= ROUND_TRIP_BYTES:
                    written[key] = tensor
                    total += tensor.nbytes
            torch.save(written, tmp_path / "part.pt")
            read = torch.load(tmp_path / "part.pt", weights_only=True)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
    changed = [key for key in written if not torch.equal(written[key].cpu(), read[key].cpu())]
    if changed:
        return CheckResult(False, f"tensors differ when read back: {changed[:3]}")
    megabytes = sum(tensor.nbytes for tensor in written.values()) / 1e6
    return CheckResult(True, f"{len(written)} tensors, {megabytes:.0f} MB")


def check_family(candidate: Candidate) -> CheckResult:
    """9. The engine generates what transformers does, and attention is measured as it is."""
    results = family_check.run(candidate.loaded, candidate.samples)
    failed = [f"{name}: {result.detail}" for name, result in results.items() if not result.passed]
    details = [f"{name}: {result.detail}" for name, result in results.items()]
    return CheckResult(not failed, "; ".join(failed or details))


def check_tags(candidate: Candidate) -> CheckResult:
    """10. A response in the expected format can be sampled, decoded, recognized and ended."""
    if problem := chat_format.tag_problem(candidate.loaded):
        return CheckResult(False, problem)
    opens = chat_format.thought_prefix(candidate.loaded.processor)
    return CheckResult(True, f"the prompt opens the thought with {opens}" if opens else "all tags")


CHECKS: dict[str, Callable[[Candidate], CheckResult]] = {
    "placeholders equal vision features": check_placeholders,
    "padding side is left": check_padding,
    "chat template has the image": check_template,
    "gold log-probability, black image": check_black_image,
    "gold log-probability, swapped image": check_swapped_image,
    "sampling cannot produce placeholders": check_sampling,
    "trained and frozen parts as configured": check_trained_parts,
    "a checkpoint can be written and loaded": check_checkpoint,
    "the family is read correctly": check_family,
    "a response can have the format": check_tags,
}


def run_checks(candidate: Candidate) -> dict[str, CheckResult]:
    """All results by name; a library's error fails only the check that raised it."""
    results = {}
    for name, check in CHECKS.items():
        try:
            results[name] = check(candidate)
        except LIBRARY_ERRORS as error:
            results[name] = CheckResult(False, f"{type(error).__name__}: {error}")
    return results
