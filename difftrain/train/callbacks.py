"""Logs TRL's training: one line per step, rewards on held-out samples, alarms of reward hacking."""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

from difftrain.config.report import ReportConfig
from difftrain.grade import reward_hacking
from difftrain.grade.reward_hacking import Alarm
from difftrain.pipeline import manifest
from difftrain.train.rewards import SUM_PREFIX, step_metrics, zero_variance_share

logger = logging.getLogger(__name__)

TRAIN_LOG = "train_log.jsonl"  # one line per step: TRL's metrics, and metrics by task and stratum
EVAL_LOG = "eval_log.jsonl"  # one line per evaluation on held-out samples: step and EVAL_REWARD
PROMPT_LOG = "prompt_log.jsonl"
"""One line per sample with the probe's answers (step 0), then one per group of rollouts; only if
GRPO chooses its prompts."""
EVAL_REWARD = "eval_rewards/accuracy/mean"
COMPLETION_LOG = "completions.jsonl"
"""One line per completion that trackers show: step, sample_id, completion, and its rewards by name.
Only if report_to names a tracker."""
RESUME_LOG = "resume_log.jsonl"
"""One line for each resume that removed rows from the logs: the step after which it removed them.
Trackers have these rows already."""


def read_log(folder: Path, name: str = TRAIN_LOG) -> list[dict[str, float]]:
    """The rows logged so far, in order, without an unfinished last line."""
    path = folder / name
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add a line for each row."""
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def truncate_log(folder: Path, last_step: int) -> float:
    """Remove the rows after `last_step`, where training resumes; returns the seconds until then."""
    rows: list[dict[str, float]] = []
    num_removed = 0
    optional = [name for name in (PROMPT_LOG, COMPLETION_LOG) if (folder / name).is_file()]
    for name in (*optional, EVAL_LOG, TRAIN_LOG):  # TRAIN_LOG last: its rows have the seconds
        logged = read_log(folder, name)
        rows = [row for row in logged if row["step"] <= last_step]
        num_removed += len(logged) - len(rows)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        manifest.write_text(folder / name, text)  # a kill leaves the old rows or the new ones
    if num_removed:
        append_rows(folder / RESUME_LOG, [{"step": last_step}])
    return rows[-1]["seconds"] if rows else 0.0


class CompletionLog:
    """Writes some completions of every few steps, for trackers to show with their images."""

    def __init__(self, folder: Path, report: ReportConfig, rewards: Sequence[str]) -> None:
        self.path, self.report, self.rewards = folder / COMPLETION_LOG, report, rewards
        self.last_step = 0

    def add(
        self, step: int, sample_ids: Sequence[str], texts: Sequence[str], rewards_NF: Any
    ) -> None:
        """Write evenly spread rows of this process's first batch of a step (F: rewards)."""
        if step == self.last_step or (step - 1) % self.report.completions_steps:
            return
        self.last_step = step
        stride = -(-len(texts) // self.report.completions)
        rows = []
        for i in range(0, len(texts), stride):
            values = dict(zip(self.rewards, map(float, rewards_NF[i]), strict=True))
            row = {"step": step, "sample_id": sample_ids[i], "completion": texts[i], **values}
            rows.append(row)
        append_rows(self.path, rows)


def scales_by_batch(args: Any) -> bool:
    """Whether TRL divides rewards by the standard deviation of the whole batch, not of a group."""
    if getattr(args, "scale_rewards", None) == "batch":
        return True
    return getattr(args, "multi_objective_aggregation", None) == "normalize_then_sum"


class JsonlLogger(TrainerCallback):
    """Writes logs and a progress bar with `bar_key`. `elapsed`: seconds before training resumed."""

    def __init__(self, folder: Path, elapsed: float, title: str, bar_key: str = "reward") -> None:
        self.folder, self.elapsed, self.title, self.bar_key = folder, elapsed, title, bar_key
        self.started = time.time()
        self.bar: tqdm | None = None
        self.warned: set[Alarm] = set()

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.is_world_process_zero:
            done, total = state.global_step, state.max_steps
            self.bar = tqdm(initial=done, total=total, desc=self.title, unit="step")

    def on_log(self, args: Any, state: TrainerState, *_: Any, logs: Any = None, **__: Any) -> None:
        """Write the step or the evaluation that has just finished."""
        if not state.is_world_process_zero or not logs:
            return
        step = {"step": state.global_step}
        if EVAL_REWARD in logs:
            self._append(EVAL_LOG, step | {EVAL_REWARD: float(logs[EVAL_REWARD])})
        if self.bar_key not in logs:
            return
        row = {
            key: float(value)
            for key, value in logs.items()
            if isinstance(value, int | float) and not key.startswith(SUM_PREFIX)
        }
        if scales_by_batch(args) and (share := zero_variance_share(logs)) is not None:
            row["frac_reward_zero_std"] = share
        seconds = {"seconds": self.elapsed + time.time() - self.started}
        self._append(TRAIN_LOG, row | step_metrics(logs, args.world_size) | step | seconds)
        if self.bar:
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix_str(f"{self.bar_key} {row[self.bar_key]:.2f}")
        if state.global_step % reward_hacking.ALARM_WINDOW == 0:
            self._warn(state.global_step)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if self.bar:
            self.bar.close()

    def _append(self, name: str, row: dict[str, float]) -> None:
        append_rows(self.folder / name, [row])

    def _warn(self, step: int) -> None:
        """Warn once when an alarm exceeds its limit over the last steps."""
        rows = read_log(self.folder)[-reward_hacking.ALARM_WINDOW :]
        for alarm, limit in reward_hacking.ALARM_LIMITS.items():
            shares = [row.get(f"alarms/{alarm}", 0.0) for row in rows]
            share = max(reward_hacking.window_means(shares), default=0.0)
            if share > limit and alarm not in self.warned:
                self.warned.add(alarm)
                text = f"{share:.0%} of the completions: {reward_hacking.ALARM_MEANINGS[alarm]}"
                with tqdm.external_write_mode():
                    logger.warning("alarm at step %d, %s: %s", step, alarm, text)
