"""MMMU: 900 validation questions of 30 subjects; an open one is graded as if it had two options."""

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
IMAGE_TAG = re.compile(r"<image ([1-9])>")  # marks the place of image N in a text


def _prompt(item: Item) -> list[Part]:
    """The text with image N in the place of each `<image N>`; without tags, the images come first.

    An image without a tag is not sent; one with two tags is sent twice. Raises ValueError if the
    item does not have the image of a tag.
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
            raise ValueError(f"MMMU item {_item_id(item)} mentions <image {piece}> but lacks it")
        else:
            parts.append({"type": "image", "value": images[int(piece) - 1]})
    return parts


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """Grade by matching options; an open item gets its gold answer as option A, which is correct.

    As in the reference, the correct option of an open item whose gold answer is one capital letter
    is that letter, unless `overrides.letter_golds`.
    """
    options, gold = harness.options(item), harness.text(item, "answer")
    if not options:
        options = {"A": gold, "B": "Other Answers"}
        is_letter = len(gold) == 1 and "A" <= gold <= "Z"
        gold = gold if is_letter and not rules.overrides.letter_golds else "A"
    return multiple_choice.grade(prediction, item, options, gold, judge, rules)


def _item_id(item: Item) -> str:
    return harness.text(item, "id", "index")


def _subject(item_id: str) -> str:
    return item_id.partition("_")[2].rpartition("_")[0]


def _category(item: Item) -> str:
    """Split, discipline and subject, joined by commas; without these columns, the subject alone."""
    if harness.is_empty(item.get("l2-category")):
        return _subject(_item_id(item))
    cells = [item.get(name) for name in ("split", "category", "l2-category")]
    return ",".join(str(cell) for cell in cells if not harness.is_empty(cell))


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split: all items, subjects, disciplines. Papers print `validation`."""
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
    num_items=900,
    hub_split="validation",
    hub_columns=("id", "question", "options", "answer", "question_type", *harness.IMAGE_COLUMNS),
    hub_image_columns=harness.IMAGE_COLUMNS,
    tsv_columns=(
        *("index", "image", "question", "answer"),
        *("A", "B", "C", "D", "split", "category", "l2-category"),
    ),
    tsv_md5s=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),  # new, old
    to_harness=_to_harness,
    hub_configs=tuple(sorted(DISCIPLINES)),
)
