"""Items per second of the evaluator against a loop that asks one item at a time; same model.

    python benchmarks/evaluate_cost.py [--items N] [KEY=VALUE ...]

Items of the six miniatures, asked and scored twice in one run: in batches as launch/evaluate.py
does it, and one by one. Writes benchmarks/results/evaluate_cost.md and .json. About three minutes
on two cores.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.evaluate import answering, asking, rules, scoring
from difftrain.evaluate.asking import Asked
from difftrain.model.engines import create
from difftrain.model.engines.types import Engine
from difftrain.model.loading import load, with_pixel_budget
from difftrain.pipeline import manifest
from difftrain.records import ItemResult
from difftrain.shapes.stub_judge import judge

RESULTS = Path(__file__).parent / "results"
AT_LEAST = 3.0
"""What the batched evaluator must gain."""


def graded(asked: Asked, response: str, config: RunConfig) -> ItemResult:
    """The Mark of one response, by the rules and the offline judge of the miniatures."""
    how, said = rules.evaluated(config.evaluate), scoring.open_tags(response)
    found = scoring.mark(asked.benchmark, said, asked.item, judge, how)
    return scoring.as_mark(asked.benchmark, response, asked.item, found)


def batched(asked: Engine, items: list[Asked], config: RunConfig) -> list[ItemResult]:
    """The evaluator's own way: chunks of four batches, batches of like length."""
    found = []
    size = config.model.batch_size * 4
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        said = dict(answering.responses(asked, chunk, config))
        found += [graded(item, said[place], config) for place, item in enumerate(chunk)]
    return found


def one_by_one(asked: Engine, items: list[Asked], config: RunConfig) -> list[ItemResult]:
    """The plain loop: one request, one answer, one mark."""
    found = []
    for item in items:
        ((_, said),) = answering.responses(asked, [item], config)
        found.append(graded(item, said, config))
    return found


def page(result: dict) -> str:
    """The result as text."""
    rows = [
        f"| {name} | {each['seconds']:.1f} | {each['processor_seconds']:.1f} | "
        f"{each['items_per_second']:.1f} |"
        for name, each in result["runs"].items()
    ]
    same = result["same_responses"] / result["items"]
    return "\n".join(
        [
            "# What does evaluating cost?",
            "",
            f"`{result['command']}`",
            "",
            f"{result['items']} items of the six miniatures, {result['model']}, batches of "
            f"{result['batch_size']}, at most {result['max_new_tokens']} new tokens, "
            f"{result['device']}, {result['threads']} thread(s). Loading the model is left out; "
            "pictures, prompts, generation and scoring are in.",
            "",
            "| | seconds | of the processor | items per second |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            f"**{result['ratio']:.1f} times** as many items per second (wanted: at least "
            f"{AT_LEAST:.0f}); {result['processor_ratio']:.1f} times by processor time, which "
            "other work on the machine changes less.",
            "",
            f"{100 * same:.1f} % of the responses are the same in both, letter by letter"
            + (" (float ties between batch shapes)." if same < 1 else "."),
            "",
        ]
    )


def main() -> None:
    """Time both ways on the same items, after a warm-up; exit code 1 if the gain is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=40, help="of each miniature")
    arguments, words = parser.parse_known_args()
    config = resolve(compose_config([*words, f"evaluate.limit={arguments.items}"]))
    model = load(config.model, config.data.min_pixels, config.data.max_pixels)
    widest = answering.widest(config)
    loaded = with_pixel_budget(model, *widest)
    asked = create.create_engine(config.model, lambda: loaded, widest)
    items = asking.items(config.evaluate)
    ways = {"in batches (the evaluator)": batched, "one at a time": one_by_one}
    for way in ways.values():
        way(asked, items[:8], config)
    runs, marks = {}, {}
    for name, way in ways.items():
        started, worked = time.perf_counter(), time.process_time()
        marks[name] = way(asked, items, config)
        seconds, busy = time.perf_counter() - started, time.process_time() - worked
        runs[name] = {
            "seconds": seconds,
            "processor_seconds": busy,
            "items_per_second": len(items) / seconds,
        }
    fast, slow = runs.values()
    same = sum(a.response == b.response for a, b in zip(*marks.values(), strict=True))
    result = {
        "items": len(items),
        "runs": runs,
        "ratio": fast["items_per_second"] / slow["items_per_second"],
        "processor_ratio": slow["processor_seconds"] / fast["processor_seconds"],
        "same_responses": same,
        "model": config.model.name,
        "batch_size": config.model.batch_size,
        "max_new_tokens": config.evaluate.max_new_tokens,
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": manifest.versions(),
        "command": f"python benchmarks/evaluate_cost.py --items {arguments.items}",
    }
    manifest.write_json(RESULTS / "evaluate_cost.json", result)
    manifest.write_text(RESULTS / "evaluate_cost.md", page(result))
    print(json.dumps(result, indent=2))
    raise SystemExit(result["ratio"] < AT_LEAST)


if __name__ == "__main__":
    main()
