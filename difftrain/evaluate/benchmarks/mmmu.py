"""MMMU: 900 questions on 30 subjects. Open questions are graded as if they had two options."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import multiple_choice
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Part, Table
from difftrain.records import ItemResult

SUBJECTS = {  # discipline -> its subjects
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
DISCIPLINE_BY_SUBJECT = {
    subject: discipline for discipline, subjects in SUBJECTS.items() for subject in subjects.split()
}
IMAGE_TAG = re.compile(r"<image ([1-9])>")  # marks where image N belongs in a text


def _prompt(item: Item) -> list[Part]:
    """The text with image N instead of each `<image N>`; without tags, the images come first.

    An image without a tag is not sent; one with two tags is sent twice. Raises ValueError if the
    item does not have the image of a tag.
    """
    text = multiple_choice.question_text(item)
    if not IMAGE_TAG.search(text):
        return harness.images_then_text(item, text)
    images = harness.images(item)
    parts: list[Part] = []
    for i, piece in enumerate(IMAGE_TAG.split(text)):  # text, image number, text, ...
        if i % 2 == 0:
            if piece:
                parts.append({"type": "text", "value": piece})
        elif int(piece) > len(images) or images[int(piece) - 1] is None:
            raise ValueError(f"MMMU item {_item_id(item)} mentions <image {piece}> but lacks it")
        else:
            parts.append({"type": "image", "value": images[int(piece) - 1]})
    return parts


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """Grade by matching options. An open item gets two: its gold answer (A) and other answers (B).

    VLMEvalKit takes a gold answer of one capital letter for the letter of the correct option, even
    if the item is open. With overrides.letter_golds, A is the correct option of every open item.
    """
    options, gold = harness.options(item), harness.text(item, "answer")
    is_open = not options
    if "A" not in options:  # open, or option A is empty; then C and all after it stay
        options = dict(sorted((options | {"A": gold, "B": "Other Answers"}).items()))
    is_letter = len(gold) == 1 and "A" <= gold <= "Z"
    if not is_letter or (is_open and rules.overrides.letter_golds):
        gold = "A"
    return multiple_choice.grade(prediction, item, options, gold, judge, rules)


def _item_id(item: Item) -> str:
    return harness.text(item, "id", "index")


def _subject(item_id: str) -> str:
    """The subject in an id: Art_Theory in validation_Art_Theory_1."""
    return item_id.partition("_")[2].rpartition("_")[0]


def _category(item: Item) -> str:
    """Split, discipline and subject, joined by commas; without these columns, the subject alone."""
    if harness.is_empty(item.get("l2-category")):
        return _subject(_item_id(item))
    cells = [item.get(name) for name in ("split", "category", "l2-category")]
    return ",".join(str(cell) for cell in cells if not harness.is_empty(cell))


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split. Its rows are all items, then the subjects, then the disciplines."""
    splits: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        splits["dev" if result.category.split(",")[0] == "dev" else "validation"].append(result)
    tables = {}
    for split, members in splits.items():
        rows = harness.category_table(members)  # has a row for the split too
        names = sorted(rows, key=lambda name: name in SUBJECTS)  # disciplines last
        tables[split] = {name: rows[name] for name in names if name != split}
    return tables


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file for a row of the hub's; `image` lists image 1, 2, ..."""
    subject = _subject(row["id"])
    if subject not in DISCIPLINE_BY_SUBJECT:
        raise ValueError(f"row {row['id']}: there is no subject {subject!r}")
    images = [row.get(column) for column in harness.IMAGE_COLUMNS]
    while images and images[-1] is None:
        images.pop()
    return {
        **{name: row[name] for name in ("id", "question", "answer", "question_type")},
        **dict(zip(LETTERS, map(str, harness.as_list(row["options"])), strict=False)),
        "index": str(number),
        "split": row["id"].partition("_")[0],
        "category": DISCIPLINE_BY_SUBJECT[subject],
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
    tsv_md5s=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
    to_harness=_to_harness,
    judge_calls=(0, 1, 3),
    hub_configs=tuple(sorted(DISCIPLINE_BY_SUBJECT)),
)
