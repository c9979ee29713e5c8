"""MMMU: 900 validation questions of 30 subjects; open ones are scored as two-option items."""

import re

from difftrain.evaluate import choices, items
from difftrain.evaluate.choices import Choice
from difftrain.evaluate.graded import Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.rules import Switches

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
    subject: discipline for discipline, some in SUBJECTS.items() for subject in some.split()
}
"""Of each of the thirty subjects."""
TAG = re.compile(r"<image ([1-9])>")
"""Where a picture stands in a text, counted from 1."""


def prompt(item: Item) -> list[Part]:
    """The text cut at each `<image N>`, picture N in its place; without tags the pictures first.

    A picture that is never mentioned is not sent; one that is mentioned twice is sent twice.
    Raises ValueError if a picture is mentioned that the item does not have.
    """
    words = choices.words(item)
    if not TAG.search(words):
        return items.images_then(item, words)
    pictures = items.images(item)
    parts: list[Part] = []
    for place, piece in enumerate(TAG.split(words)):
        if place % 2 == 0:
            if piece:
                parts.append({"type": "text", "value": piece})
        elif int(piece) > len(pictures) or pictures[int(piece) - 1] is None:
            raise ValueError(f"MMMU item {item_id(item)} mentions <image {piece}> but has none")
        else:
            parts.append({"type": "image", "value": pictures[int(piece) - 1]})
    return parts


def as_choice(item: Item, letters_are_texts: bool = False) -> Choice:
    """The item as the reference scores it; an open one has its gold as A and all else as B.

    An open gold that is itself one capital letter stays the gold letter, as in the reference,
    unless `letters_are_texts`.
    """
    question, gold = str(item.get("question", "")), str(items.first(item, "answer"))
    options, identity = items.options(item), str(item.get("id") or item.get("index"))
    if options:
        return Choice(question, options, gold, identity)
    stays = len(gold) == 1 and "A" <= gold <= "Z" and not letters_are_texts
    return Choice(question, {"A": gold, "B": OTHER}, gold if stays else "A", identity)


def grade(prediction: str, item: Item, judge: Judge | None, rules: Switches) -> Graded:
    """By the option rule, else by the judge."""
    choice = as_choice(item, rules.deviations.letter_golds)
    return choices.grade(prediction, choice, judge, rules)


def item_id(item: Item) -> str:
    """The `id` column, else `index`."""
    return items.text(item, "id", "index")


def subset(item: Item) -> str:
    """Split, discipline and subject as far as columns hold them, joined by commas."""
    if not items.is_empty(item.get("l2-category")):
        columns = ("split", "category", "l2-category")
        return ",".join(str(item[each]) for each in columns if not items.is_empty(item.get(each)))
    return item_id(item).partition("_")[2].rpartition("_")[0]


BENCHMARK = Benchmark(
    name="MMMU",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    subset=subset,
    cluster=item_id,
    judge="sometimes",
)
