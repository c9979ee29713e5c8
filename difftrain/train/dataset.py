"""Samples as TRL wants them: a conversational prompt without template, pictures beside it.

Pictures are read and decoded when a batch is, so that the memory does not grow with the samples.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from PIL import Image

from difftrain import images
from difftrain.data import prompts
from difftrain.records import Sample, Selection


@dataclass(frozen=True, slots=True)
class Material:
    """What one arm learns from and is watched on, and the stratum of each of these samples."""

    samples: Sequence[Sample]
    held_out: Sequence[Sample] = ()
    strata: Mapping[str, str] = field(default_factory=dict)


def left_over(samples: Sequence[Sample], picks: Sequence[Selection], most: int) -> list[Sample]:
    """The first samples, by their id, that are not trained on, nor a copy of one that is.

    Copies (data.duplicates=keep) have ids of their own: words are compared, and the pictures of
    those whose words are equal, so that few pictures are read.
    """
    taken = {pick.sample_id for pick in picks}
    trained: dict[tuple, list[Sample]] = {}
    for sample in samples:
        if sample.sample_id in taken:
            trained.setdefault(words(sample), []).append(sample)
    seen: dict[tuple, set[str]] = {}
    found: list[Sample] = []
    rest = [sample for sample in samples if sample.sample_id not in taken]
    for sample in sorted(rest, key=lambda sample: sample.sample_id):
        if len(found) == most:
            break
        if alike := trained.get(key := words(sample)):
            if key not in seen:
                seen[key] = {seen_pictures(each) for each in alike}
            if seen_pictures(sample) in seen[key]:
                continue
        found.append(sample)
    return found


def words(sample: Sample) -> tuple:
    """What a sample asks and what is right, without its pictures."""
    return sample.question, sample.options, sample.answer


def seen_pictures(sample: Sample) -> str:
    """A hash of a sample's pictures as they are stored."""
    digest = hashlib.blake2b(digest_size=16)
    for png in sample.images:
        digest.update(images.file_hash(png))
    return digest.hexdigest()


def chosen(samples: Sequence[Sample], picks: Sequence[Selection]) -> list[Sample]:
    """The picked samples, in the order of the picks. Raises KeyError for an unknown id."""
    by_id = {sample.sample_id: sample for sample in samples}
    return [by_id[pick.sample_id] for pick in picks]


def prompt(sample: Sample) -> list[dict[str, str]]:
    """The words of a sample: TRL puts the pictures before those of the user's turn itself."""
    return [
        {"role": "system", "content": prompts.SYSTEM},
        {"role": "user", "content": prompts.user_text(sample.question, sample.options)},
    ]


def pictures(sample: Sample) -> list[Image.Image]:
    """A sample's pictures, decoded."""
    return [images.from_png(png) for png in sample.images]


def dataset(samples: Sequence[Sample]) -> Dataset:
    """A TRL dataset of these samples: prompt, images (PIL) and sample_id."""
    rows = [{"prompt": prompt(each), "sample_id": each.sample_id} for each in samples]
    return with_pictures(rows, samples)


def with_pictures(rows: list[dict[str, Any]], samples: Sequence[Sample]) -> Dataset:
    """These rows as a dataset that decodes the pictures of a row's sample_id when it is read.

    A group's answers share one decoded picture: a batch decodes each of its samples once.
    """
    by_id = {sample.sample_id: sample for sample in samples}

    def shown(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        decoded = {each: pictures(by_id[each]) for each in set(batch["sample_id"])}
        return {**batch, "images": [decoded[each] for each in batch["sample_id"]]}

    return Dataset.from_list(rows).with_transform(shown)
