"""MMMU: 900 validation questions of 30 subjects; open ones are scored as two-option items."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import multiple_choice
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
IMAGE_TAG = re.compile(r"<image ([1-9])>")  # where an image stands in a text, counted from 1


def _prompt(item: Item) -> list[Part]:
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
            raise ValueError(f"MMMU item {_item_id(item)} mentions <image {piece}> but has none")
        else:
            parts.append({"type": "image", "value": images[int(piece) - 1]})
    return parts


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """By the option rule, else by the judge; an open item has its gold as A and all else as B.

    An open gold that is itself one capital letter stays the gold letter, as in the reference,
    unless `overrides.letter_golds`.
    """
    options, gold = harness.options(item), harness.text(item, "answer")
    if not options:
        options = {"A": gold, "B": "Other Answers"}
        stays = len(gold) == 1 and "A" <= gold <= "Z" and not rules.overrides.letter_golds
        gold = gold if stays else "A"
    return multiple_choice.grade(prediction, item, options, gold, judge, rules)


def _item_id(item: Item) -> str:
    return harness.text(item, "id", "index")


def _subject(item_id: str) -> str:
    return item_id.partition("_")[2].rpartition("_")[0]


def _category(item: Item) -> str:
    """Split, discipline and subject as far as columns hold them, joined by commas."""
    if harness.is_empty(item.get("l2-category")):
        return _subject(_item_id(item))
    cells = [item.get(name) for name in ("split", "category", "l2-category")]
    return ",".join(str(cell) for cell in cells if not harness.is_empty(cell))


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split: overall, subjects, disciplines. `validation` is the printed one."""
    splits: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        splits["dev" if result.category.split(",")[0] == "dev" else "validation"].append(result)
    tables = {}
    for split, members in splits.items():
        rows = harness.category_table(members)
        names = sorted(rows, key=lambda name: name in SUBJECTS)
        tables[split] = {name: rows[name] for name in names if name != split}
    return tables


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Options become columns, and `image` lists image 1, 2, ..."""
    subject = _subject(row["id"])
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
    prompt=_prompt,
    grade=_grade,
    item_id=_item_id,
    category=_category,
    tables=_tables,
    count=900,
    split="validation",
    columns=("id", "question", "options", "answer", "question_type", *harness.IMAGE_COLUMNS),
    image_columns=harness.IMAGE_COLUMNS,
    tsv_columns=(
        *("index", "image", "question", "answer"),
        *("A", "B", "C", "D", "split", "category", "l2-category"),
    ),
    md5=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
    to_harness=_to_harness,
    configs=tuple(sorted(DISCIPLINES)),
)
