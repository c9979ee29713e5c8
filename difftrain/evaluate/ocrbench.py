"""OCRBench: 1000 reading items, right if a gold answer occurs anywhere in the prediction."""

from difftrain.evaluate import items
from difftrain.evaluate.graded import Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.rules import Switches
from difftrain.records import GradedBy

FORMULAS = "Handwritten Mathematical Expression Recognition"


def prompt(item: Item) -> list[Part]:
    """The picture, then the question as it stands."""
    return items.images_then(item, items.text(item, "question"))


def golds(item: Item) -> list[str]:
    """The accepted answers, a list or the text of one."""
    return [str(each) for each in items.listed(items.first(item, "answer", "answers"))]


def _spelled(text: str, formula: bool) -> str:
    line = text.strip().replace("\n", " ")
    return line.replace(" ", "") if formula else line.lower()


def grade(prediction: str, item: Item, judge: Judge | None, rules: Switches) -> Graded:
    """1 if a gold is a part of the prediction; formulas keep their case and lose their blanks."""
    formula = subset(item) == FORMULAS
    said = _spelled(prediction, formula)
    found = [gold for gold in golds(item) if _spelled(gold, formula) in said]
    return Graded(float(bool(found)), found[0].strip() if found else None, GradedBy.rule)


def item_id(item: Item) -> str:
    """The `index` column, else `id`."""
    return items.text(item, "index", "id")


def subset(item: Item) -> str:
    """The type of reading."""
    return items.text(item, "category", "type", "question_type")


BENCHMARK = Benchmark(
    name="OCRBench",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    subset=subset,
    cluster=item_id,
    judge="never",
)
