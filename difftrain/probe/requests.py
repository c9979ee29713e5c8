"""One probe request: from a sample, a mask ratio and a draw to the engine's request, and from its
completion to a graded rollout.
"""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from difftrain import grade, images, seeds
from difftrain.config.difficulty import ProbeConfig
from difftrain.config.grade import GradeConfig
from difftrain.data import prompts
from difftrain.model.engines.types import Completion, Request
from difftrain.probe import masks
from difftrain.records import Rollout, Sample, View

PLACEHOLDER = re.compile(r"<image(?: ?\d+)?>|<\|(?:vision_start|vision_end|image_pad)\|>")
"""Marks in a question's text that stand for an image."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Draw number `draw` of a sample with `percent` of its images hidden, or without images."""

    sample: Sample
    percent: int
    draw: int
    text_only: bool = False

    @property
    def view(self) -> View:
        """What the model is shown."""
        if self.text_only:
            return View.text_only
        return View.masked if self.percent else View.full_image


def sampling_seed(root: int, request: ProbeRequest) -> int:
    """The seed of a draw's sampling noise; it depends on the draw alone."""
    what = request.view if request.text_only else request.percent
    return seeds.derive(root, "draw", request.sample.sample_id, what, request.draw)


def mask_seed(root: int, request: ProbeRequest, image_index: int, nested: bool) -> int:
    """The seed of a draw's mask; `nested` leaves the percent out, so that masks grow with it."""
    percent = () if nested else (request.percent,)
    return seeds.derive(root, "mask", request.sample.sample_id, image_index, *percent, request.draw)


def request_images(
    request: ProbeRequest, config: ProbeConfig, root: int
) -> tuple[Image.Image, ...]:
    """The request's images, masked if its percent is above 0."""
    shown = []
    for index, png in enumerate(request.sample.images):
        image = images.from_png(png)
        if request.percent:
            seed = mask_seed(root, request, index, config.nested)
            masked = masks.mask(np.asarray(image), request.percent, seed, config.mask)
            image = Image.fromarray(masked)
        shown.append(image)
    return tuple(shown)


def prompt_text(sample: Sample, view: View) -> str:
    """The user's text; for the text-only view without the placeholders of images."""
    text = prompts.user_text(sample.question, sample.options)
    return PLACEHOLDER.sub("", text).strip() if view is View.text_only else text


def engine_request(request: ProbeRequest, config: ProbeConfig, root: int) -> Request:
    """The engine's request for this draw."""
    shown = () if request.text_only else request_images(request, config, root)
    same_for_all_draws = request.view is not View.masked
    return Request(
        parts=(*shown, prompt_text(request.sample, request.view)),
        seed=sampling_seed(root, request),
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        view=f"{request.sample.sample_id}/{request.view}" if same_for_all_draws else None,
    )


def graded_rollout(
    request: ProbeRequest, completion: Completion, root: int, rules: GradeConfig = grade.STRICT
) -> Rollout:
    """The graded row of a draw."""
    return Rollout(
        sample_id=request.sample.sample_id,
        view=request.view,
        mask_percent=request.percent,
        draw=request.draw,
        seed=sampling_seed(root, request),
        response=completion.text,
        num_tokens=completion.num_tokens,
        token_ids=completion.token_ids,
        hit_eos=completion.hit_eos,
        verdict=grade.grade(completion.text, request.sample, rules),
    )
