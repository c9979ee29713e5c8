"""From a benchmark's name to its items, from an item to a request, from a response to a Mark."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from difftrain.data import prompts
from difftrain.evaluate import scoring
from difftrain.evaluate.config import AnswerTags, EvaluateConfig, SystemPrompt
from difftrain.evaluate.graded import Item, Judge
from difftrain.model.generate.request import Request
from difftrain.records import Mark
from difftrain.shapes import benchmarks as miniatures
from difftrain.shapes.judge import judge as miniature_judge

ALL_ITEMS = 300
"""Items of a miniature when evaluate.limit is null."""
JUDGE = "shapes stand-in (rules, no model)"
"""What is printed as the judge of the miniatures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One item of a benchmark."""

    benchmark: str
    item: Item

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the item among all marks."""
        return self.benchmark, scoring.benchmark_named(self.benchmark).item_id(self.item)


def items(config: EvaluateConfig) -> list[Asked]:
    """All items of the wanted benchmarks, in order."""
    return [
        Asked(name, item)
        for name in config.benchmarks
        for item in miniatures.items(name.removeprefix("shapes/"), config.limit or ALL_ITEMS)
    ]


def request(asked: Asked, config: EvaluateConfig) -> Request:
    """The official prompt, greedy."""
    parts = [
        Image.open(BytesIO(part["value"])).convert("RGB")
        if part["type"] == "image"
        else part["value"]
        for part in scoring.build_prompt(asked.benchmark, asked.item)
    ]
    return Request(
        parts=tuple(parts),
        system=prompts.SYSTEM if config.system is SystemPrompt.think else None,
        max_new_tokens=config.max_new_tokens,
    )


def graded(
    asked: Asked, response: str, config: EvaluateConfig, judge: Judge = miniature_judge
) -> Mark:
    """The Mark of one response; <answer> is opened first unless answer_tags says raw."""
    opened = config.answer_tags is AnswerTags.strip
    prediction = scoring.open_tags(response) if opened else response
    found = scoring.mark(asked.benchmark, prediction, asked.item, judge, config.rules)
    return scoring.as_mark(asked.benchmark, response, asked.item, found)
