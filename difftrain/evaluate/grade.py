"""Evaluates one checkpoint: generates missing responses, grades all, and writes the results.

The ranks share the generation, which can be resumed; the first rank grades. generate.py stores the
responses, so that grading them with other rules or another judge needs no model.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.model import ModelConfig
from difftrain.evaluate import compare, generate, grade_prediction, item_result, write_results
from difftrain.evaluate.generate import ResponseStatus, ResponseStore, StoredResponse
from difftrain.evaluate.harness import ItemGrade, configured_rules
from difftrain.evaluate.judge import JudgeClient
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.evaluate.summary import count_no_response
from difftrain.model.engines.types import Engine, read_engine_info
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat, run_shared_stage
from difftrain.records import GradedBy, ItemResult, ItemStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationFolders:
    """The folders of one checkpoint's responses and results, and of the judge's cached replies."""

    responses: Path
    results: Path
    replies: Path


def grade_response(
    item: BenchmarkItem, stored: StoredResponse, config: EvaluateConfig, judge_client: JudgeClient
) -> ItemResult:
    """The result of one stored response."""
    if stored.response is None:
        grade = ItemGrade(score=None, error=stored.error)
        result = item_result(item.benchmark, item.row, response=None, grade=grade)
        is_skipped = stored.status is ResponseStatus.skipped
        return replace(result, status=ItemStatus.skipped) if is_skipped else result
    judge = judge_client.for_item(item.benchmark, config.rules)
    text = write_results.prediction(stored.response, config)
    grade = grade_prediction(item.benchmark, text, item.row, judge, configured_rules(config))
    if judge is not None:
        num_usable = grade.usable_replies
        if num_usable is None:  # no call follows a usable reply, so at most one reply is usable
            num_usable = int(grade.graded_by is GradedBy.judge)
        judge_client.usage.add("unusable", judge.num_replies - num_usable)
    return item_result(item.benchmark, item.row, stored.response, grade)


def grade_all(
    responses: Sequence[tuple[BenchmarkItem, StoredResponse]],
    config: EvaluateConfig,
    judge_client: JudgeClient,
) -> list[ItemResult]:
    """A result for every (item, response), in order. Raises OSError if the disk is full."""
    pool = ThreadPoolExecutor(judge_client.num_threads)
    no_bar = judge_client.num_threads == 1  # a judge that is called in this process is fast
    try:
        futures = [pool.submit(grade_response, *pair, config, judge_client) for pair in responses]
        completed = as_completed(futures)
        for future in tqdm(completed, "grade", len(futures), unit="item", disable=no_bar):
            future.result()
            if judge_client.disk_full is not None:
                raise judge_client.disk_full
    finally:
        judge_client.close()
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def evaluate(
    make_engine: Callable[[int, int], Engine],
    folders: EvaluationFolders,
    checkpoint: str,
    config: EvaluateConfig,
    model: ModelConfig,
    data_pixels: tuple[int, ...],
    world: World,
) -> None:
    """Write a response and a result for every item, the scores and manifest.json.

    `make_engine(min_pixels, max_pixels)` is called only if a response is missing; `data_pixels` are
    the limits for the built-in shapes/ benchmarks. Raises ConfigError if the judge rejects the key.
    """
    if write_results.is_finished(folders.results):
        return  # without loading the items
    items = {generate.response_key(item): item for item in load_items(config)}
    keys, store = list(items), ResponseStore(folders.responses)
    judge_client = JudgeClient(config.judge, config.judge_client, folders.replies)

    def generate_share(heart: Heartbeat) -> None:
        store.forget_failed(world)
        missing = store.missing(keys)
        if missing and world.is_first and judge_client.server is not None:
            judge_client.server.check_key()
        if share := [pair for pair in world.share(list(items.items())) if pair[0] in missing]:
            rows_per_part = model.max_concurrency * 4  # few files, and a kill loses few rows
            generate.generate_responses(
                make_engine, share, store, config, data_pixels, heart, rows_per_part
            )

    def grade_and_write() -> dict[str, Any]:
        # Without this manifest, a run that is killed from here on does not look finished.
        (folders.results / "manifest.json").unlink(missing_ok=True)
        pairs = [(item, store[key]) for key, item in items.items()]
        results = grade_all(pairs, config, judge_client)
        if no_response := count_no_response(results):
            problem = f"{no_response} items got no response from the engine"
            logger.warning(f"{problem}; run the same command again to request them again")
        unscored = sum(result.score is None for result in results)
        counts = {"items": len(results), "unscored": unscored, "no_response": no_response}
        counts |= {"judge": judge_client.counts(), "engines": read_engine_info(store.folder)}
        values = write_results.scores_md_values(config, counts, str(model.dtype), data_pixels[:2])
        all_items = list(items.values())
        write_results.write(folders.results, checkpoint, all_items, results, config, values)
        return counts

    inputs = {"checkpoint": checkpoint, "responses": store.folder.name}
    hashes = generate.item_hashes(keys)
    inputs |= {compare.ITEMS_PREFIX + name: hashes[name] for name in hashes}
    run_shared_stage(
        folders.results,
        world,
        generate_share,
        is_complete=lambda: store.is_complete(keys),
        close=grade_and_write,  # runs only on the first rank, when all shares are complete
        settings=lambda: write_results.settings_of(config, store.folder, str(model.dtype)),
        inputs=inputs,
        is_finished=write_results.has_nothing_to_retry,
        lock=store.folder,  # evaluations with other rules write to this folder too
    )
