"""Keeps some of GRPO's completions with their rewards, for the explorer's page of a sample.

Each process writes rollouts-<rank>-<number>-<step>.parquet beside the training log, at the latest
whenever a checkpoint is saved. Two completions of a group are kept, and the middle of a long one is
left out: 5,000 steps of 8 groups are at most 80,000 rows of about 1 KB before compression.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainerCallback, TrainerState

MAX_PER_GROUP = 2  # completions of a prompt that are kept in a step
MAX_CHARS = 1000
MAX_BUFFERED = 1000  # rows, after which a file is written
OMITTED = " […] "


@dataclass(frozen=True, slots=True)
class TrainRollout:
    """One completion to a sample in an optimizer step, and its rewards.

    `reward` is the weighted sum of all rewards, as in the training log; `accuracy` the grader's.
    """

    sample_id: str
    step: int
    completion: str
    reward: float
    accuracy: float


class RolloutLog(TrainerCallback):
    """The rollout log of one process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.rows: list[TrainRollout] = []

    def record(
        self,
        step: int,
        sample_ids: Sequence[str],
        completions: Sequence[str],
        rewards: Sequence[float],
        accuracies: Sequence[float],
    ) -> None:
        """Keep the first completions of each prompt; all arguments have one item a completion."""
        counts: Counter[str] = Counter()
        columns = zip(sample_ids, completions, rewards, accuracies, strict=True)
        for sample_id, completion, reward, accuracy in columns:
            counts[sample_id] += 1
            if counts[sample_id] <= MAX_PER_GROUP:
                text = shortened(completion)
                self.rows.append(TrainRollout(sample_id, step, text, reward, accuracy))
        if len(self.rows) >= MAX_BUFFERED:
            self.write()

    def write(self) -> None:
        """Write the rows so far to a file of their own, completely or not at all."""
        if not self.rows:
            return
        # A step may fill several files: refill records each of its rounds.
        number = len(list(self.folder.glob(f"rollouts-{self.rank:03}-*.parquet")))
        step = self.rows[-1].step
        path = self.folder / f"rollouts-{self.rank:03}-{number:06}-{step:07}.parquet"
        tmp_path = path.with_suffix(".tmp")
        table = pa.Table.from_pylist([asdict(row) for row in self.rows])
        pq.write_table(table, tmp_path, compression="zstd")
        tmp_path.replace(path)
        self.rows = []

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Remove what is of steps after the checkpoint from which training resumes."""
        for path in self.folder.glob(f"rollouts-{self.rank:03}-*.parquet"):
            if int(path.stem.rpartition("-")[2]) > state.global_step:
                path.unlink()

    def on_save(self, *_: Any, **__: Any) -> None:
        self.write()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.write()


def shortened(text: str) -> str:
    """The text, without its middle if it is longer than MAX_CHARS."""
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]}{OMITTED}{text[-half:]}"
