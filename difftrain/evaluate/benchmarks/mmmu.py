"""MMMU: 900 validation questions of 30 subjects; open ones are scored as two-option items."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import multiple_choice
from difftrain.evaluate.benchmarks.multiple_choice import Choice
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Part, Table
from difftrain.records import ItemResult

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
        return harness.images_then_text(item, text)
    images = harness.images(item)
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


def grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """By the option rule, else by the judge; an open item has its gold as A and all else as B.

    An open gold that is itself one capital letter stays the gold letter, as in the reference,
    unless `overrides.letter_golds`.
    """
    options, gold = harness.options(item), harness.text(item, "answer")
    if not options:
        options = {"A": gold, "B": "Other Answers"}
        stays = len(gold) == 1 and "A" <= gold <= "Z" and not rules.overrides.letter_golds
        gold = gold if stays else "A"
    question, identity = str(item.get("question", "")), str(item.get("id") or item.get("index"))
    return multiple_choice.grade(
        prediction, Choice(question, options, gold, identity), judge, rules
    )


def item_id(item: Item) -> str:
    """The `id` column, else `index`."""
    return harness.text(item, "id", "index")


def category(item: Item) -> str:
    """Split, discipline and subject as far as columns hold them, joined by commas."""
    if not harness.is_empty(item.get("l2-category")):
        names = ("split", "category", "l2-category")
        return ",".join(str(item[name]) for name in names if not harness.is_empty(item.get(name)))
    return item_id(item).partition("_")[2].rpartition("_")[0]


def tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split: overall, subjects, disciplines. `validation` is the printed one."""
    splits: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        split = result.category.split(",")[0]
        splits[split if split == "dev" else "validation"].append(result)
    by_split = {}
    for split, members in splits.items():
        rows = harness.rows_by_category(members)
        rows.pop(split, None)
        order = sorted(rows, key=lambda name: name in SUBJECTS)
        by_split[split] = {
            harness.OVERALL: harness.table_row(members),
            **{name: rows[name] for name in order},
        }
    return by_split


def to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A hub row in the harness's columns: options become columns, `image` lists image 1, 2, ..."""
    subject = row["id"].partition("_")[2].rpartition("_")[0]
    if subject not in DISCIPLINES:
        raise ValueError(f"row {row['id']}: there is no subject {subject!r}")
    images = [row.get(column) for column in harness.IMAGE_COLUMNS]
    while images and images[-1] is None:
        images.pop()
    return {
        **{name: row[name] for name in ("id", "question", "answer", "question_type")},
        **dict(zip(LETTERS, map(str, harness.as_list(row["options"])), strict=False)),
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
    count=900,
    split="validation",
    columns=("id", "question", "options", "answer", "question_type", *harness.IMAGE_COLUMNS),
    image_columns=harness.IMAGE_COLUMNS,
    tsv_columns=(
        *("index", "image", "question", "answer"),
        *("A", "B", "C", "D", "split", "category", "l2-category"),
    ),
    md5=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
    to_harness=to_harness,
    configs=tuple(sorted(DISCIPLINES)),
)
