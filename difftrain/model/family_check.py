"""Checks that this package reads a model's family correctly, on a few of its samples.

What the engine generates must equal transformers' own `generate`, and the attention masses must
equal those of eager attention. So a family that nobody tried is either right or refused, before
anything is spent. The references share no code with the engine: prompts come from the processor's
own chat template, the caches and masks from the model. Axes: L layers, T response tokens.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from difftrain import images
from difftrain.config.difficulty import TextSpan
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.data import prompts
from difftrain.model import attention, family
from difftrain.model.engines.hf import HfEngine, eos_token_ids
from difftrain.model.engines.kv_cache import encode
from difftrain.model.engines.types import Completion, Request, Result, generate_all
from difftrain.model.loading import LoadedModel
from difftrain.records import Sample

logger = logging.getLogger(__name__)

NUM_TOKENS = 6  # of each greedy response
MAX_SIDE = 224  # larger images are shrunk first: eager attention stores whole matrices
MAX_MASS_ERROR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
MAX_LOGIT_ERROR = {torch.float32: 1e-3, torch.bfloat16: 0.5}  # by which rounding may change a logit
MIN_CHANGE = 1e-4  # nats by which some token's log-probability must change with another image


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a check passed, and what was measured or why it failed."""

    passed: bool
    detail: str


def view_requests(samples: Sequence[Sample]) -> dict[str, Request]:
    """Five prompts, by name: without image, with it, black, with two images, image inside text."""
    with_image = [sample for sample in samples if sample.images]
    first, last = with_image[0], with_image[-1]  # the same if there is only one
    image, other = (_small(sample) for sample in (first, last))
    text = prompts.user_text(first.question, first.options)
    views: dict[str, tuple[str | Image.Image, ...]] = {
        "text only": (text,),
        "image": (image, text),
        "black image": (Image.new("RGB", image.size), text),
        "two images": (image, other, text),
        "image inside the text": ("Look: ", image, text),
    }
    return {
        name: Request(parts=parts, max_new_tokens=NUM_TOKENS, view=name)
        for name, parts in views.items()
    }


def _small(sample: Sample) -> Image.Image:
    image = images.from_png(sample.images[0])
    if max(image.size) > MAX_SIDE:
        scale = MAX_SIDE / max(image.size)
        width, height = (max(28, round(side * scale)) for side in image.size)
        image = image.resize((width, height))
    return image


def reference_inputs(loaded: LoadedModel, request: Request) -> dict[str, Any]:
    """The inputs of one prompt, as the processor's own chat template makes them."""
    messages = prompts.messages(request.parts, request.system)
    remaining = iter(request.images)
    for part in messages[-1]["content"]:
        if part["type"] == "image":
            part["image"] = next(remaining)
    batch = loaded.processor.apply_chat_template(
        [messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )
    return dict(batch.to(loaded.device))


def engine_logits(
    loaded: LoadedModel, requests: Sequence[Request]
) -> tuple[list[Result], dict[tuple[int, int], torch.Tensor]]:
    """The engine's results, and its logits by (index of the request, index of the token).

    Without logits for models that `generate` itself decodes.
    """
    logits: dict[tuple[int, int], torch.Tensor] = {}
    engine = HfEngine(loaded, ModelConfig())
    batch_class: Any = engine.batch_class

    class Recording(batch_class):
        def sample(self, logits_BV: torch.Tensor, rows: Sequence[Any]) -> list[int]:
            for row, logits_V in zip(rows, logits_BV, strict=True):
                if row is not None:
                    logits[row.key, len(row.ids)] = logits_V.float().clone()
            return super().sample(logits_BV, rows)

    engine.batch_class = Recording
    return generate_all(engine, requests), logits


def check_tokens(loaded: LoadedModel, requests: Mapping[str, Request]) -> CheckResult:
    """The engine's greedy tokens and their logits equal those of `generate`, for all views.

    Logits may differ by rounding; a token may differ where rounding decides between two.
    """
    results, engine_logits_by_token = engine_logits(loaded, list(requests.values()))
    banned, limit = list(loaded.banned.values()), MAX_LOGIT_ERROR.get(loaded.model.dtype, 0.5)
    largest = 0.0
    for index, (name, request) in enumerate(requests.items()):
        result, inputs = results[index], reference_inputs(loaded, request)
        encoded = encode(loaded, [request])["input_ids"][0].tolist()
        if encoded != inputs["input_ids"][0].tolist():
            return CheckResult(False, f"{name}: the engine's prompt differs from the template's")
        if not isinstance(result, Completion):
            return CheckResult(False, f"{name}: {result.reason}")
        output = loaded.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                eos_token_id=sorted(eos_token_ids(loaded)),
                pad_token_id=loaded.processor.tokenizer.pad_token_id,
                suppress_tokens=banned or None,
                return_dict_in_generate=True,
                output_logits=True,
            ),
        )
        expected = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        for position, token in enumerate(expected):
            logits = engine_logits_by_token.get((index, position))
            if logits is not None:
                error = (logits - output.logits[position][0].float()).abs().max()
                largest = max(largest, float(error))
            generated = result.token_ids[position : position + 1]
            if generated != (token,):
                reference = output.logits[position][0].float()
                gap = (
                    float(reference[token] - reference[list(generated)].max()) if generated else 1e9
                )
                if gap > limit:
                    problem = f"token {position} is {generated}, not {token} as in transformers"
                    return CheckResult(False, f"{name}: {problem}")
                break  # rounding decided; what follows continues another text
        if largest > limit:
            return CheckResult(False, f"{name}: logits differ from transformers' by {largest:.2g}")
    detail = f"{len(requests)} views of {NUM_TOKENS} tokens"
    return CheckResult(True, f"{detail}, logits within {largest:.1g}")


def with_response(inputs: dict[str, Any], response: Sequence[int]) -> dict[str, Any]:
    """The inputs of one prompt, followed by the response's tokens."""
    ids = inputs["input_ids"]
    added = torch.tensor([list(response)], dtype=ids.dtype, device=ids.device)
    values = {"input_ids": added, "attention_mask": torch.ones_like(added)}
    none = torch.zeros_like(added)  # the type of a text token is 0
    extended = {
        key: torch.cat([inputs[key], values.get(key, none)], dim=1)
        for key in family.per_token_keys(inputs)
    }
    return {**inputs, **extended}


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Inside the block, all attention is eager."""
    before = {id(c): (c, c._attn_implementation) for c in _configs(model.config)}
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for config, implementation in before.values():
            config._attn_implementation = implementation


def _configs(config: Any) -> list[Any]:
    return [config, *(getattr(config, name) for name in getattr(config, "sub_configs", {}))]


@torch.inference_mode()
def check_masses(loaded: LoadedModel, requests: Mapping[str, Request]) -> CheckResult:
    """Attention masses equal those of the matrices that eager attention returns."""
    model, largest, responses = loaded.model, 0.0, ([5, 6, 7], [8, 9, 10, 11, 12])
    layers = sorted(
        {0, *family.measured_layers(model.config), len(family.layer_types(model.config)) - 1}
    )
    measured = family.measured_layers(model.config)
    if not measured:
        return CheckResult(True, "no layer has full attention, so none is measured")
    for name, response in zip(("image", "two images"), responses, strict=True):
        inputs = with_response(reference_inputs(loaded, requests[name]), response)
        spans = attention.token_spans(inputs, [len(response)], loaded.image_token, TextSpan.prompt)
        image_LT, text_LT = attention.masses(
            model, inputs, spans.image_BS, spans.text_BS, spans.response_BS
        )[0]
        with eager(model):
            output = model(**inputs, output_attentions=True, use_cache=False)
        matrices = [a for a in output.attentions if a is not None]
        if len(matrices) == len(family.layer_types(model.config)):
            matrices = [matrices[layer] for layer in measured]
        if len(matrices) != len(measured):
            return CheckResult(False, f"eager attention returns {len(matrices)} matrices")
        for layer, matrix in zip(measured, matrices, strict=True):
            row = layers.index(layer)
            weights = matrix[0].float().mean(0)[spans.response_BS[0]].cpu()
            for masses, span in ((image_LT, spans.image_BS), (text_LT, spans.text_BS)):
                expected = weights @ span[0].float().cpu()
                largest = max(largest, float((masses[row] - expected).abs().max()))
    limit = MAX_MASS_ERROR.get(model.dtype, 2e-2)
    layer_text = family.layers_text(measured, model.config)
    detail = f"largest deviation {largest:.1e} in {layer_text}"
    return CheckResult(largest <= limit, detail if largest <= limit else f"{detail}, over {limit}")


@torch.inference_mode()
def check_image_matters(loaded: LoadedModel, requests: Mapping[str, Request]) -> CheckResult:
    """A black image changes the next token's log-probabilities."""
    pairs = [
        loaded.model(**reference_inputs(loaded, requests[name])).logits[0, -1].float()
        for name in ("image", "black image")
    ]
    original, black = (logits.log_softmax(-1) for logits in pairs)
    change = float((original - black).abs().max())
    detail = f"changes by up to {change:.2g} nats"
    if change > MIN_CHANGE:
        return CheckResult(True, detail)
    return CheckResult(False, f"{detail}: the images do not reach the model")


def check_bans(loaded: LoadedModel, requests: Mapping[str, Request]) -> CheckResult:
    """Every token that an image puts into the prompt is banned from responses.

    Tokens that also stand in prompts without images, such as line breaks, are not an image's.
    """
    with_image, without = (
        {*reference_inputs(loaded, requests[name])["input_ids"][0].tolist()}
        for name in ("two images", "text only")
    )
    tokenizer, banned = loaded.processor.tokenizer, {*loaded.banned.values()}
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    if open_tokens := sorted((with_image - without) & special - banned):
        names = ", ".join(map(str, tokenizer.convert_ids_to_tokens(open_tokens)))
        return CheckResult(False, f"can be sampled: {names}")
    return CheckResult(bool(banned), f"{len(banned)} tokens are banned")


def check_parts(loaded: LoadedModel) -> CheckResult:
    """A vision tower, a projector and a language model were found."""
    by_part = {*family.parts(loaded.model).values()}
    if missing := [part for part in family.PARTS[:3] if part not in by_part]:
        return CheckResult(False, f"not found: {', '.join(missing)}")
    return CheckResult(True, ", ".join(part for part in family.PARTS if part in by_part))


def run(loaded: LoadedModel, samples: Sequence[Sample]) -> dict[str, CheckResult]:
    """All checks by name, on the first and the last of the samples with images."""
    requests = view_requests(samples)
    return {
        "vision tower and projector are found": check_parts(loaded),
        "image tokens are banned": check_bans(loaded, requests),
        "image changes the answer": check_image_matters(loaded, requests),
        "engine equals generate": check_tokens(loaded, requests),
        "masses equal eager attention": check_masses(loaded, requests),
    }


def require_known(loaded: LoadedModel, samples: Sequence[Sample], name: str) -> None:
    """Run all checks before samples are scored. Raises ConfigError with those that fail."""
    if not any(sample.images for sample in samples):
        return
    results = run(loaded, samples)
    failed = [f"{key}: {result.detail}" for key, result in results.items() if not result.passed]
    if failed:
        raise ConfigError([f"model.name={name}: is read wrongly, {problem}" for problem in failed])
    details = "; ".join(f"{key} ({result.detail})" for key, result in results.items())
    logger.info("model family: %s", details)
