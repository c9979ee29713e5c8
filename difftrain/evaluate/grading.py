"""From responses to Mark rows, under one set of rules and one judge. No model is loaded here."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from tqdm import tqdm

from difftrain.config.evaluate import AnswerTags, EvaluateConfig
from difftrain.evaluate import rules, scoring
from difftrain.evaluate.asking import Asked
from difftrain.evaluate.judge.client import Judging
from difftrain.records import ItemResult

BEAT_SECONDS = 1.0


def graded(asked: Asked, response: str, config: EvaluateConfig, judging: Judging) -> ItemResult:
    """The Mark of one response; <answer> is opened first unless answer_tags says raw."""
    opened = config.answer_tags is AnswerTags.strip and scoring.why_nothing(response) is None
    prediction = scoring.open_tags(response) if opened else response
    judge = judging.of_item(asked.benchmark, config.rules)
    found = scoring.mark(asked.benchmark, prediction, asked.item, judge, rules.evaluated(config))
    if judge is not None:
        judge.settle(found)
    return scoring.as_mark(asked.benchmark, response, asked.item, found)


def grade_all(
    said: Sequence[tuple[Asked, str]],
    config: EvaluateConfig,
    judging: Judging,
    beat: Callable[[], None],
) -> list[ItemResult]:
    """A Mark for every (item, response), in order; `judging.workers` items at a time.

    Raises OSError if the disk is too full to keep the judge's replies.
    """
    bar = tqdm(total=len(said), desc="grade", unit="item", disable=judging.workers == 1)
    pool = ThreadPoolExecutor(judging.workers)
    try:
        futures = [pool.submit(graded, *each, config, judging) for each in said]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=BEAT_SECONDS)
            for each in done:
                each.result()
            if judging.disk_full is not None:
                raise judging.disk_full
            beat()
            bar.update(len(done))
    finally:
        judging.close()
        pool.shutdown(cancel_futures=True)
        bar.close()
    return [each.result() for each in futures]
