"""Samples as TRL's datasets: conversational prompts, images decoded only when a batch is read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import filterfalse, islice
from typing import Any

from datasets import Dataset
from PIL import Image

from difftrain import images
from difftrain.data import prompts
from difftrain.records import Sample, Selection


@dataclass(frozen=True, slots=True)
class TrainData:
    """Training samples of one arm (tuned or control), held-out samples, strata by sample id.

    By sample id also, for samplers that use them: the numbers of correct and of other responses to
    the full image in the probe, and PISM's failure ratio (None: it never fails).
    """

    samples: Sequence[Sample]
    eval_samples: Sequence[Sample] = ()
    strata: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    failure_ratios: Mapping[str, float | None] = field(default_factory=dict)


def selected(samples: Sequence[Sample], selections: Sequence[Selection]) -> list[Sample]:
    """The selected samples, in the order of the selections. Raises KeyError for an unknown id."""
    by_id = {sample.sample_id: sample for sample in samples}
    return [by_id[selection.sample_id] for selection in selections]


def _text_key(sample: Sample) -> tuple:
    return sample.question, sample.options, sample.answer


def _image_hashes(sample: Sample) -> tuple[bytes, ...]:
    return tuple(images.file_hash(png) for png in sample.images)


def held_out(samples: list[Sample], selections: list[Selection], limit: int) -> list[Sample]:
    """The first `limit` samples by id that are neither training samples nor copies of these.

    A copy has another id (data.duplicates=keep allows copies). Images are read only if question,
    options and answer equal those of a training sample.
    """
    trained_ids = {selection.sample_id for selection in selections}
    trained: dict[tuple, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.sample_id in trained_ids:
            trained[_text_key(sample)].append(sample)

    @cache
    def trained_hashes(key: tuple) -> set[tuple[bytes, ...]]:
        return {_image_hashes(sample) for sample in trained[key]}

    def is_copy(sample: Sample) -> bool:
        key = _text_key(sample)
        return key in trained and _image_hashes(sample) in trained_hashes(key)

    rest = [sample for sample in samples if sample.sample_id not in trained_ids]
    rest.sort(key=lambda sample: sample.sample_id)
    return list(islice(filterfalse(is_copy, rest), limit))


def chat_prompt(sample: Sample) -> list[dict[str, str]]:
    """System and user turn; TRL itself puts the images before the user's text."""
    return [
        {"role": "system", "content": prompts.SYSTEM},
        {"role": "user", "content": prompts.user_text(sample.question, sample.options)},
    ]


def decoded_images(sample: Sample) -> list[Image.Image]:
    """A sample's images as RGB."""
    return [images.from_png(png) for png in sample.images]


def to_dataset(samples: Sequence[Sample]) -> Dataset:
    """A TRL dataset of these samples: prompt, images (PIL) and sample_id."""
    rows = [{"prompt": chat_prompt(s), "sample_id": s.sample_id} for s in samples]
    return with_images(rows, samples)


def with_images(rows: list[dict[str, Any]], samples: Sequence[Sample]) -> Dataset:
    """A dataset of these rows; reading a batch decodes the images of each sample in it once."""
    by_id = {sample.sample_id: sample for sample in samples}

    def add_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoded = {id_: decoded_images(by_id[id_]) for id_ in set(batch["sample_id"])}
        return {**batch, "images": [decoded[id_] for id_ in batch["sample_id"]]}

    return Dataset.from_list(rows).with_transform(add_images)
