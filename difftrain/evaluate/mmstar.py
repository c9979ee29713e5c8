"""MMStar: 1500 multiple-choice questions over six capabilities, in the harness's columns.

The data set itself writes the options into the question; a loader must part them into columns
A to D (as the harness's TSV has them) before an item comes here.
"""

from difftrain.evaluate import choices, items
from difftrain.evaluate.choices import Choice
from difftrain.evaluate.graded import Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.rules import Switches


def prompt(item: Item) -> list[Part]:
    """The picture, then the question with its options. An `<image 1>` in the text stays there."""
    _options(item)
    return items.images_then(item, choices.words(item))


def grade(prediction: str, item: Item, judge: Judge | None, rules: Switches) -> Graded:
    """By the option rule, else by the judge."""
    gold = items.text(item, "answer")
    choice = Choice(str(item.get("question", "")), _options(item), gold, str(item.get("index")))
    return choices.grade(prediction, choice, judge, rules)


def item_id(item: Item) -> str:
    """The `index` column."""
    return items.text(item, "index")


def subset(item: Item) -> str:
    """The capability."""
    return items.text(item, "category")


def _options(item: Item) -> dict[str, str]:
    options = items.options(item)
    if not options:
        raise ValueError(f"MMStar item {item.get('index')} has no option columns A, B, C, D")
    return options


BENCHMARK = Benchmark(
    name="MMStar",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    subset=subset,
    cluster=item_id,
    judge="sometimes",
)
