"""From a benchmark's name to its items, and from an item to a request."""

from dataclasses import dataclass

from difftrain.config.evaluate import OFFICIAL, EvaluateConfig, SystemPrompt
from difftrain.data import prompts
from difftrain.evaluate import pictures, scoring, sources
from difftrain.evaluate.graded import Item
from difftrain.images import PixelBudget
from difftrain.model.engines.types import Request
from difftrain.shapes import benchmarks as miniatures

ALL_ITEMS = 300
"""Items of a miniature when evaluate.limit is null."""


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
    """All items of the wanted benchmarks, in order; pictures of official ones are not read yet.

    Raises what sources.official_items raises.
    """
    return [
        Asked(name, item)
        for name in config.benchmarks
        for item in (
            sources.official_items(name, config)
            if name in OFFICIAL
            else miniatures.items(name.removeprefix("shapes/"), config.limit or ALL_ITEMS)
        )
    ]


def request(asked: Asked, config: EvaluateConfig, pixels: PixelBudget) -> Request:
    """The official prompt, greedy, pictures inside the limits. Raises ImageError for a picture."""
    parts = [
        pictures.shown(part["value"], pixels) if part["type"] == "image" else part["value"]
        for part in scoring.build_prompt(asked.benchmark, asked.item)
    ]
    return Request(
        parts=tuple(parts),
        system=prompts.SYSTEM if config.system is SystemPrompt.think else None,
        max_new_tokens=config.max_new_tokens,
    )
