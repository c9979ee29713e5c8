"""Six benchmarks asked of one checkpoint: items in, Mark rows and summary.json out.

Sharded by rank and resumable; the text of every response is kept, so that other rules or another
judge need no model.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from difftrain import artefacts, heartbeat, lineage, settings
from difftrain.data import prompts
from difftrain.evaluate import scoring, summary
from difftrain.evaluate.config import AnswerTags, EvaluateConfig, SystemPrompt
from difftrain.evaluate.graded import Item, Judge
from difftrain.model.generate import hf
from difftrain.model.generate.request import Request
from difftrain.model.load import Loaded
from difftrain.records import Mark
from difftrain.shapes import benchmarks as miniatures
from difftrain.shapes.judge import judge as miniature_judge
from difftrain.world import World

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


def graded(asked: Asked, response: str, config: EvaluateConfig, judge: Judge) -> Mark:
    """The Mark of one response; <answer> is opened first unless answer_tags says raw."""
    opened = config.answer_tags is AnswerTags.strip
    prediction = scoring.open_tags(response) if opened else response
    found = scoring.mark(asked.benchmark, prediction, asked.item, judge, config.rules)
    return scoring.as_mark(asked.benchmark, response, asked.item, found)


def run_share(
    loaded: Loaded, wanted: Sequence[Asked], folder: Path, config: settings.RunConfig, world: World
) -> None:
    """Ask and grade these items; each chunk is written as a part."""
    size = config.model.batch_size
    bar = tqdm(total=len(wanted), desc="evaluate", unit="item", disable=not world.is_first)
    for start in range(0, len(wanted), size * 4):
        chunk = wanted[start : start + size * 4]
        requests = [request(asked, config.evaluate) for asked in chunk]
        answers = hf.answers(loaded, requests, size)
        marks = [
            graded(asked, answer.text, config.evaluate, miniature_judge)
            for asked, answer in zip(chunk, answers, strict=True)
        ]
        artefacts.write_part(folder, artefacts.next_part(folder, world.rank), marks)
        heartbeat.beat(folder, world)
        bar.update(len(chunk))
    bar.close()


def by_benchmark(marks: Sequence[Mark], names: Sequence[str]) -> dict[str, list[Mark]]:
    """The marks of each benchmark, in the order of the names."""
    return {name: [mark for mark in marks if mark.benchmark == name] for name in names}


def summaries(marks: Sequence[Mark], config: EvaluateConfig) -> dict[str, dict[str, float]]:
    """Score and 95 % interval of each benchmark and of their mean, fractions of 1."""
    groups = by_benchmark(marks, config.benchmarks)
    found = {
        name: asdict(summary.headline(name, group, resamples=config.resamples))
        for name, group in groups.items()
    }
    mean = summary.mean_headline(groups, resamples=config.resamples)
    return {**found, "mean": asdict(mean)}


def run(
    load: Callable[[], Loaded],
    folder: Path,
    checkpoint: str,
    config: settings.RunConfig,
    world: World,
) -> None:
    """Fill the folder with a Mark for every item, then summary.json, then made.json."""
    if lineage.read_made(folder) is not None:
        return
    started = time.time()
    heartbeat.beat(folder, world)
    wanted = items(config.evaluate)

    def missing() -> list[Asked]:
        done = {(mark.benchmark, mark.item_id) for mark in artefacts.read(folder, Mark)}
        return [asked for asked in wanted if asked.key not in done]

    here = {asked.key for asked in missing()}
    share = [asked for asked in world.share(wanted) if asked.key in here]
    if share:
        run_share(load(), share, folder, config, world)
    if not world.is_first:
        return heartbeat.wait(folder, world, lambda: lineage.read_made(folder) is not None)
    heartbeat.wait(folder, world, lambda: not missing())
    marks = artefacts.read(folder, Mark)
    lineage.write_json(folder / "summary.json", summaries(marks, config.evaluate))
    lineage.write_made(
        folder,
        settings={**settings.plain(config.evaluate), "judge": JUDGE},
        inputs={"checkpoint": checkpoint},
        seconds=time.time() - started,
        counts={"items": len(marks)},
    )
    heartbeat.clear(folder)
