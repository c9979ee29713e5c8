"""Samples as TRL wants them: a conversational prompt without template, pictures beside it."""

from collections.abc import Sequence
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
