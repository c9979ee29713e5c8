"""One draw: from a sample, a ratio and a number to its request, and from the answer to its row."""

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
"""Marks in a question's own words that stand for a picture."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Response number `draw` of a sample with `percent` of its pictures hidden, or without them."""

    sample: Sample
    percent: int
    draw: int
    without: View | None = None
    """text_only: the pictures are not shown at all."""

    @property
    def view(self) -> View:
        """What the model is shown."""
        return self.without or (View.masked if self.percent else View.full_image)


def sampling_seed(root: int, draw: ProbeRequest) -> int:
    """The seed of a draw's sampling noise; it depends on the draw alone."""
    if draw.view is View.text_only:
        return seeds.derive(root, "draw", draw.sample.sample_id, draw.view, draw.draw)
    return seeds.derive(root, "draw", draw.sample.sample_id, draw.percent, draw.draw)


def mask_seed(root: int, draw: ProbeRequest, picture: int, nested: bool) -> int:
    """The seed of a draw's mask; nested leaves the percent out, so that masks grow."""
    rung = () if nested else (draw.percent,)
    return seeds.derive(root, "mask", draw.sample.sample_id, picture, *rung, draw.draw)


def request_images(draw: ProbeRequest, config: ProbeConfig, root: int) -> tuple[Image.Image, ...]:
    """The draw's pictures, masked if its percent is above 0."""
    shown = []
    for number, png in enumerate(draw.sample.images):
        picture = images.from_png(png)
        if draw.percent:
            seed = mask_seed(root, draw, number, config.nested)
            masked = masks.mask(np.asarray(picture), draw.percent, seed, config.mask)
            picture = Image.fromarray(masked)
        shown.append(picture)
    return tuple(shown)


def prompt_text(sample: Sample, view: View) -> str:
    """The user's words; without pictures, also without the places where pictures would stand."""
    told = prompts.user_text(sample.question, sample.options)
    return PLACEHOLDER.sub("", told).strip() if view is View.text_only else told


def model_request(draw: ProbeRequest, config: ProbeConfig, root: int) -> Request:
    """What the model is asked for this draw."""
    shown = () if draw.view is View.text_only else request_images(draw, config, root)
    alike = draw.view is not View.masked  # every mask is a draw's own
    return Request(
        parts=(*shown, prompt_text(draw.sample, draw.view)),
        seed=sampling_seed(root, draw),
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        view=f"{draw.sample.sample_id}/{draw.view}" if alike else None,
    )


def graded_rollout(
    draw: ProbeRequest, answer: Completion, root: int, rules: GradeConfig = grade.STRICT
) -> Rollout:
    """The graded row of a draw."""
    return Rollout(
        sample_id=draw.sample.sample_id,
        view=draw.view,
        mask_percent=draw.percent,
        draw=draw.draw,
        seed=sampling_seed(root, draw),
        response=answer.text,
        num_tokens=answer.num_tokens,
        token_ids=answer.token_ids,
        hit_eos=answer.hit_eos,
        verdict=grade.grade(answer.text, draw.sample, rules),
    )
