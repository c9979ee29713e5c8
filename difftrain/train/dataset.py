"""Samples as TRL wants them: a conversational prompt without template, pictures beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from difftrain.data import prompts
from difftrain.records import Pick, Sample

FEATURES = Features(
    {
        "prompt": List({"role": Value("string"), "content": Value("string")}),
        "images": List(Image(mode="RGB")),
        "sample_id": Value("string"),
    }
)


@dataclass(frozen=True, slots=True)
class Material:
    """What one arm learns from and is watched on, and the stratum of each of these samples."""

    samples: Sequence[Sample]
    held_out: Sequence[Sample] = ()
    strata: Mapping[str, str] = field(default_factory=dict)


def left_over(samples: Sequence[Sample], picks: Sequence[Pick], most: int) -> list[Sample]:
    """The first samples, by their content's hash, that are not trained on."""
    taken = {pick.sample_id for pick in picks}
    rest = [sample for sample in samples if sample.sample_id not in taken]
    return sorted(rest, key=lambda sample: sample.sample_id)[:most]


def chosen(samples: Sequence[Sample], picks: Sequence[Pick]) -> list[Sample]:
    """The picked samples, in the order of the picks. Raises KeyError for an unknown id."""
    by_id = {sample.sample_id: sample for sample in samples}
    return [by_id[pick.sample_id] for pick in picks]


def row(sample: Sample) -> dict[str, Any]:
    """One row: TRL puts the pictures before the words of the user's turn itself."""
    return {
        "prompt": [
            {"role": "system", "content": prompts.SYSTEM},
            {"role": "user", "content": prompts.user_text(sample.question, sample.options)},
        ],
        "images": [{"bytes": png, "path": None} for png in sample.images],
        "sample_id": sample.sample_id,
    }


def dataset(samples: Sequence[Sample]) -> Dataset:
    """A TRL dataset of these samples; pictures are decoded when a row is read."""
    return Dataset.from_list([row(sample) for sample in samples], features=FEATURES)
