"""Some of GRPO's completions are kept with their rewards, few of each group and short."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from difftrain.config.train import GrpoConfig
from difftrain.train import rollout_log
from difftrain.train.rollout_log import RolloutLog
from difftrain.view.sample import train_rollouts
from tests.train.chosen_groups import build, shapes_pool


def rows_in(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("rollouts-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def record(log: RolloutLog, step: int, sample_id: str = "a", text: str = "text") -> None:
    log.record(step, [sample_id] * 4, [text] * 4, [0.1, 1.1, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])


def test_a_training_keeps_two_completions_of_each_group_with_their_rewards(tmp_path: Path) -> None:
    trainer = build(shapes_pool("ldld"), tmp_path, GrpoConfig(), max_steps=2)
    tmp_path.mkdir(exist_ok=True)
    trainer.rollout_log = RolloutLog(tmp_path, 0)
    trainer.add_callback(trainer.rollout_log)
    trainer.train()
    rows = rows_in(tmp_path)
    assert Counter(row["step"] for row in rows) == {1: 4, 2: 4}
    assert set(Counter(row["sample_id"] for row in rows).values()) == {2}
    dead = [row for row in rows if row["sample_id"].startswith("dead")]
    assert len(dead) == 4
    assert all(row["reward"] == row["accuracy"] == 0 for row in dead)
    assert {row["accuracy"] for row in rows} == {0.0, 1.0}
    assert all(row["completion"] for row in rows)


def test_rows_are_found_by_their_sample_in_the_order_of_steps(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, 0)
    for step, sample_id in ((1, "a"), (2, "b"), (3, "a")):
        record(log, step, sample_id)
        log.on_save()
    rows = train_rollouts(tmp_path, "a")
    assert [(row["step"], row["reward"]) for row in rows] == [
        (1, 0.1),
        (1, 1.1),
        (3, 0.1),
        (3, 1.1),
    ]
    assert train_rollouts(tmp_path / "none", "a") == []


def test_a_long_completion_loses_its_middle(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, 0)
    record(log, 1, text="<think>" + 100 * "very long " + "</answer>")
    log.on_train_end()
    text = rows_in(tmp_path)[0]["completion"]
    assert len(text) == rollout_log.MAX_CHARS + len(rollout_log.OMITTED)
    assert text.startswith("<think>")
    assert text.endswith("</answer>")


def test_rounds_of_one_step_that_fill_a_file_each_lose_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refill records each round of a step; a full buffer is written after any of them."""
    monkeypatch.setattr(rollout_log, "MAX_BUFFERED", 4)
    log = RolloutLog(tmp_path, 0)
    for step, sample_id in ((1, "a"), (2, "b"), (2, "c"), (2, "d")):
        record(log, step, sample_id)
    log.on_save()
    assert Counter(row["sample_id"] for row in rows_in(tmp_path)) == dict.fromkeys("abcd", 2)


def test_a_resumed_training_replaces_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, 0)
    for step in (10, 20, 30):
        record(log, step)
        log.write()
    RolloutLog(tmp_path, 1).on_train_begin(None, SimpleNamespace(global_step=0))
    assert len(rows_in(tmp_path)) == 6  # another process's files stay
    RolloutLog(tmp_path, 0).on_train_begin(None, SimpleNamespace(global_step=20))
    assert {row["step"] for row in rows_in(tmp_path)} == {10, 20}
