"""Compare the items per second of the evaluator and of a loop over single benchmark items.

    python benchmarks/evaluate_cost.py [--items N] [KEY=VALUE ...]

Generates and grades responses to the items of the six built-in shapes/ benchmarks (drawings of
colored shapes) twice: in batches, as launch/evaluate.py does, and one by one. Writes
benchmarks/results/evaluate_cost.md and .json. About three minutes on two cores.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from difftrain import evaluate
from difftrain.cli.overrides import compose_config
from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.run_config import RunConfig, resolve
from difftrain.evaluate import write_results
from difftrain.evaluate.generate import (
    ResponseKey,
    pixel_budgets,
    response_key,
    stream_responses,
    widest_budget,
)
from difftrain.evaluate.harness import configured_rules
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.images import PixelBudget
from difftrain.model.engines.types import Engine
from difftrain.pipeline import manifest
from difftrain.pipeline.model_session import ModelSession
from difftrain.records import ItemResult
from difftrain.shapes.benchmarks import judge

RESULTS = Path(__file__).parent / "results"
MIN_RATIO = 3.0
"""The evaluator must handle at least this many times as many items per second as the loop."""

Pairs = list[tuple[ResponseKey, BenchmarkItem]]
"""Benchmark items, each after the key under which its response is stored."""


def grade(item: BenchmarkItem, response: str, config: EvaluateConfig) -> ItemResult:
    """Grade one response by rules, or by a judge if the benchmark needs one.

    The judge of the shapes/ benchmarks is a function instead of a language model.
    """
    text, rules = write_results.prediction(response, config), configured_rules(config)
    graded = evaluate.grade_prediction(item.benchmark, text, item.row, judge, rules)
    return evaluate.item_result(item.benchmark, item.row, response, graded)


def respond(engine: Engine, pairs: Pairs, config: RunConfig) -> dict[ResponseKey, str]:
    """The engine's response to each item; empty if a request failed."""
    rows = stream_responses(engine, pairs, config.evaluate, budgets_by_benchmark(config))
    return {row.key: row.response or "" for row in rows}


def budgets_by_benchmark(config: RunConfig) -> dict[str, PixelBudget]:
    """The pixel limits of each benchmark."""
    return pixel_budgets(config.evaluate, (config.data.min_pixels, config.data.max_pixels))


def run_in_batches(engine: Engine, pairs: Pairs, config: RunConfig) -> list[ItemResult]:
    """As the evaluator does: it sorts the prompts of four batches by length, to save padding."""
    results = []
    chunk_size = config.model.batch_size * 4
    for start in range(0, len(pairs), chunk_size):
        chunk = pairs[start : start + chunk_size]
        responses = respond(engine, chunk, config)
        results += [grade(item, responses[key], config.evaluate) for key, item in chunk]
    return results


def run_one_by_one(engine: Engine, pairs: Pairs, config: RunConfig) -> list[ItemResult]:
    """The plain loop: it generates and grades one response before it begins the next one."""
    results = []
    for key, item in pairs:
        response = respond(engine, [(key, item)], config)[key]
        results.append(grade(item, response, config.evaluate))
    return results


def page(result: dict) -> str:
    """The content of evaluate_cost.md."""
    rows = [
        f"| {name} | {run['seconds']:.1f} | {run['processor_seconds']:.1f} | "
        f"{run['items_per_second']:.1f} |"
        for name, run in result["runs"].items()
    ]
    same_share = result["same_responses"] / result["items"]
    return "\n".join(
        [
            "# What does evaluating cost?",
            "",
            f"`{result['command']}`",
            "",
            f"{result['items']} items of the six shapes/ benchmarks, {result['model']}, batches of "
            f"{result['batch_size']}, at most {result['max_new_tokens']} new tokens, "
            f"{result['device']}, {result['threads']} thread(s). The time includes images, "
            "prompts, generation and grading, but not loading the model.",
            "",
            "| | seconds | processor seconds | items per second |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            f"In batches **{result['ratio']:.1f} times** as many items per second (required: at "
            f"least {MIN_RATIO:.0f}). By processor time, which other work on the machine changes "
            f"less, {result['processor_ratio']:.1f} times.",
            "",
            f"{100 * same_share:.1f} % of the responses are the same in both, letter by letter"
            + (" (rounding depends on the batch's shape)." if same_share < 1 else "."),
            "",
        ]
    )


def main() -> None:
    """Time both methods on the same items; exit code 1 if the ratio is below MIN_RATIO."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=40, help="items of each benchmark")
    arguments, overrides = parser.parse_known_args()
    config = resolve(compose_config([*overrides, f"evaluate.limit={arguments.items}"]))
    session = ModelSession(config.model, config.data)
    # The engine's pixel limits include those of every benchmark: it resizes no image again.
    engine = session.engine(*widest_budget(budgets_by_benchmark(config)))
    pairs = [(response_key(item), item) for item in load_items(config.evaluate)]
    methods = {"in batches (the evaluator)": run_in_batches, "one at a time": run_one_by_one}
    for method in methods.values():
        method(engine, pairs[:8], config)  # warm up
    runs, results = {}, {}
    for name, method in methods.items():
        started, cpu_started = time.perf_counter(), time.process_time()
        results[name] = method(engine, pairs, config)
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_started
        runs[name] = {
            "seconds": seconds,
            "processor_seconds": cpu_seconds,
            "items_per_second": len(pairs) / seconds,
        }
    fast, slow = runs.values()
    same = sum(a.response == b.response for a, b in zip(*results.values(), strict=True))
    result = {
        "items": len(pairs),
        "runs": runs,
        "ratio": fast["items_per_second"] / slow["items_per_second"],
        "processor_ratio": slow["processor_seconds"] / fast["processor_seconds"],
        "same_responses": same,
        "model": config.model.name,
        "batch_size": config.model.batch_size,
        "max_new_tokens": config.evaluate.max_new_tokens,
        "device": str(session.model.device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": manifest.versions(),
        "command": f"python benchmarks/evaluate_cost.py --items {arguments.items}",
    }
    manifest.write_json(RESULTS / "evaluate_cost.json", result)
    manifest.write_text(RESULTS / "evaluate_cost.md", page(result))
    print(json.dumps(result, indent=2))
    raise SystemExit(result["ratio"] < MIN_RATIO)


if __name__ == "__main__":
    main()
