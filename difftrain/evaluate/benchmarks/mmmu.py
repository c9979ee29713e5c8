"""MMMU: 900 validation questions of 30 subjects; open ones are scored as two-option items."""

import re
from collections.abc import Sequence
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import columns
from difftrain.evaluate.benchmarks import multiple_choice
from difftrain.evaluate.benchmarks.multiple_choice import Choice
from difftrain.evaluate.columns import IMAGE_COLUMNS
from difftrain.evaluate.types import (
    OVERALL,
    Benchmark,
    HarnessRules,
    Item,
    ItemGrade,
    Judge,
    OfficialSet,
    Part,
    Table,
    rows_by_category,
    table_row,
)
from difftrain.records import ItemResult

OTHER = "Other Answers"
SUBJECTS = {
    "Art & Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health & Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
        "Public_Health"
    ),
    "Humanities & Social Science": "History Literature Psychology Sociology",
    "Tech & Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
        "Materials Mechanical_Engineering"
    ),
}
DISCIPLINES = {
    subject: discipline for discipline, subjects in SUBJECTS.items() for subject in subjects.split()
}
"""Of each of the thirty subjects."""
IMAGE_TAG = re.compile(r"<image ([1-9])>")
"""Where an image stands in a text, counted from 1."""


def prompt(item: Item) -> list[Part]:
    """The text cut at each `<image N>`, image N in its place; without tags the images first.

    An image that is never mentioned is not sent; one that is mentioned twice is sent twice.
    Raises ValueError if an image is mentioned that the item does not have.
    """
    text = multiple_choice.question_text(item)
    if not IMAGE_TAG.search(text):
        return columns.images_then_text(item, text)
    images = columns.images(item)
    parts: list[Part] = []
    for i, piece in enumerate(IMAGE_TAG.split(text)):
        if i % 2 == 0:
            if piece:
                parts.append({"type": "text", "value": piece})
        elif int(piece) > len(images) or images[int(piece) - 1] is None:
            raise ValueError(f"MMMU item {item_id(item)} mentions <image {piece}> but has none")
        else:
            parts.append({"type": "image", "value": images[int(piece) - 1]})
    return parts


def as_choice(item: Item, letter_golds: bool = False) -> Choice:
    """The item as the reference scores it; an open one has its gold as A and all else as B.

    An open gold that is itself one capital letter stays the gold letter, as in the reference,
    unless `letter_golds`.
    """
    question, gold = str(item.get("question", "")), str(columns.first(item, "answer"))
    options, identity = columns.options(item), str(item.get("id") or item.get("index"))
    if options:
        return Choice(question, options, gold, identity)
    stays = len(gold) == 1 and "A" <= gold <= "Z" and not letter_golds
    return Choice(question, {"A": gold, "B": OTHER}, gold if stays else "A", identity)


def grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """By the option rule, else by the judge."""
    choice = as_choice(item, rules.overrides.letter_golds)
    return multiple_choice.grade(prediction, choice, judge, rules)


def item_id(item: Item) -> str:
    """The `id` column, else `index`."""
    return columns.text(item, "id", "index")


def category(item: Item) -> str:
    """Split, discipline and subject as far as columns hold them, joined by commas."""
    if not columns.is_empty(item.get("l2-category")):
        names = ("split", "category", "l2-category")
        return ",".join(str(item[name]) for name in names if not columns.is_empty(item.get(name)))
    return item_id(item).partition("_")[2].rpartition("_")[0]


def tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split: overall, subjects, disciplines. `validation` is the printed one."""
    splits: dict[str, list[ItemResult]] = {}
    for result in results:
        split = result.category.split(",")[0]
        splits.setdefault(split if split == "dev" else "validation", []).append(result)
    by_split = {}
    for split, members in splits.items():
        rows = rows_by_category(members)
        rows.pop(split, None)
        order = sorted(rows, key=lambda name: name in SUBJECTS)
        by_split[split] = {OVERALL: table_row(members), **{name: rows[name] for name in order}}
    return by_split


def to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A hub row in the harness's columns: options become columns, `image` lists image 1, 2, ..."""
    subject = row["id"].partition("_")[2].rpartition("_")[0]
    if subject not in DISCIPLINES:
        raise ValueError(f"row {row['id']}: there is no subject {subject!r}")
    images = [row.get(column) for column in IMAGE_COLUMNS]
    while images and images[-1] is None:
        images.pop()
    return {
        **{name: row[name] for name in ("id", "question", "answer", "question_type")},
        **dict(zip(LETTERS, map(str, columns.as_list(row["options"])), strict=False)),
        "index": str(number),
        "split": row["id"].partition("_")[0],
        "category": DISCIPLINES[subject],
        "l2-category": subject,
        "image": images,
    }


BENCHMARK = Benchmark(
    name="MMMU",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    category=category,
    tables=tables,
    official=OfficialSet(
        count=900,
        split="validation",
        columns=("id", "question", "options", "answer", "question_type", *IMAGE_COLUMNS),
        image_columns=IMAGE_COLUMNS,
        tsv_columns=(
            *("index", "image", "question", "answer"),
            *("A", "B", "C", "D", "split", "category", "l2-category"),
        ),
        md5=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
        to_harness=to_harness,
        configs=tuple(sorted(DISCIPLINES)),
    ),
)
