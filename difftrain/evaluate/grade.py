"""One checkpoint on the benchmarks: generate missing responses, grade all of them, write results.

Sharded by rank and resumable; responses are kept apart from results (generate.py), so that other
rules or another judge need no model. The first rank grades.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.model import ModelConfig
from difftrain.evaluate import generate, grade_prediction, item_result, write_results
from difftrain.evaluate.generate import ResponseStatus, ResponseStore, StoredResponse
from difftrain.evaluate.items import BenchmarkItem, load_items
from difftrain.evaluate.judge.client import JudgeClient
from difftrain.evaluate.types import ItemGrade, configured_rules
from difftrain.model.engines.types import Engine
from difftrain.pipeline import coordination, manifest
from difftrain.pipeline.coordination import World
from difftrain.records import ItemResult, ItemStatus

POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EvaluationFolders:
    """Where a checkpoint's responses, its item results and the judge's replies are kept."""

    responses: Path
    results: Path
    replies: Path


def grade_response(
    item: BenchmarkItem, stored: StoredResponse, config: EvaluateConfig, judge_client: JudgeClient
) -> ItemResult:
    """The result of one stored response."""
    if stored.response is None:
        skipped = stored.status is ResponseStatus.skipped
        status = ItemStatus.skipped if skipped else ItemStatus.failed
        grade = ItemGrade(None, None, None, stored.error)
        return item_result(item.benchmark, item.item, None, grade, status)
    judge = judge_client.for_item(item.benchmark, config.rules)
    text = write_results.prediction(stored.response, config)
    grade = grade_prediction(item.benchmark, text, item.item, judge, configured_rules(config))
    if judge is not None:
        judge.count_unusable(grade)
    return item_result(item.benchmark, item.item, stored.response, grade)


def grade_all(
    responses: Sequence[tuple[BenchmarkItem, StoredResponse]],
    config: EvaluateConfig,
    judge_client: JudgeClient,
    on_idle: Callable[[], None],
) -> list[ItemResult]:
    """A result for every (item, response), in order; `judge_client.workers` items at a time.

    Raises OSError if the disk is too full to keep the judge's replies.
    """
    bar = tqdm(total=len(responses), desc="grade", unit="item", disable=judge_client.workers == 1)
    pool = ThreadPoolExecutor(judge_client.workers)
    try:
        futures = [pool.submit(grade_response, *pair, config, judge_client) for pair in responses]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=POLL_SECONDS)
            for future in done:
                future.result()
            if judge_client.disk_full is not None:
                raise judge_client.disk_full
            on_idle()
            bar.update(len(done))
    finally:
        judge_client.close()
        pool.shutdown(cancel_futures=True)
        bar.close()
    return [future.result() for future in futures]


def evaluate(
    make_engine: Callable[[int, int], Engine],
    folders: EvaluationFolders,
    checkpoint: str,
    config: EvaluateConfig,
    model: ModelConfig,
    data_pixels: tuple[int, int],
    world: World,
) -> None:
    """Fill the folders with a response and a result for every item, then summary and manifest.

    `make_engine` is called, with pixel limits, only if a response is missing. `data_pixels` are the
    limits of miniatures. Raises ConfigError if the judge's server turns the key away.
    """
    if write_results.is_done(folders.results):
        return
    started = time.time()
    coordination.beat(folders.responses, world)
    items = {generate.response_key(item): item for item in load_items(config)}
    keys = list(items)
    store = ResponseStore(folders.responses)
    store.forget_failed(world)
    judge_client = JudgeClient(config.judge, config.judge_client, folders.replies)
    missing = store.missing(keys)
    if missing and world.is_first and judge_client.server is not None:
        judge_client.server.check_key()
    share = [pair for pair in world.share(list(items.items())) if pair[0] in missing]
    budgets = generate.pixel_budgets(config, data_pixels)
    engine = None
    if share:
        engine = generate.start_engine(make_engine, budgets, folders.responses, world)
    if world.is_first:
        write_results.reopen(folders.results)
    if engine is not None:
        rows_per_part = model.max_concurrency * 4
        generate.generate_responses(engine, share, store, config, budgets, world, rows_per_part)
    coordination.wait(folders.responses, world, lambda: store.is_complete(keys))
    if not world.is_first:
        return coordination.wait(
            folders.results, world, lambda: manifest.read_manifest(folders.results) is not None
        )
    coordination.remove_heartbeats(folders.responses)
    pairs = [(item, store[key]) for key, item in items.items()]
    results = grade_all(
        pairs, config, judge_client, lambda: coordination.beat(folders.results, world)
    )
    evaluation = write_results.Evaluation(
        config=config,
        checkpoint=checkpoint,
        dtype=str(model.dtype),
        data_pixels=data_pixels,
        responses=folders.responses,
        started=started,
        judge_counts=judge_client.counts(),
        item_hashes=generate.item_hashes(items),
    )
    write_results.write(folders.results, list(items.values()), results, evaluation)
