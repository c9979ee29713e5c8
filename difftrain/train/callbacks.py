"""What is written while TRL trains: one line a step, and a progress bar."""

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

NAMES = {
    "reward": "reward",
    "rewards/correct/mean": "reward_correct",
    "rewards/layout/mean": "reward_layout",
    "frac_reward_zero_std": "dead_groups",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
    "kl": "kl",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""TRL's names of the curves, and ours."""


def read_log(folder: Path) -> list[dict[str, float]]:
    """The steps logged so far, in order; a half-written last line is left out."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def truncate_log(folder: Path, last_step: int) -> float:
    """Forget the steps after the checkpoint that training continues from; seconds spent so far."""
    kept = [row for row in read_log(folder) if row["step"] <= last_step]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return kept[-1]["seconds"] if kept else 0.0


class StepLog(TrainerCallback):
    """Appends a line a step to log.jsonl and shows reward and time left; first rank only."""

    def __init__(self, folder: Path, spent: float, title: str) -> None:
        self.path, self.spent, self.title = folder / "log.jsonl", spent, title
        self.started = time.time()
        self.bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Open the bar where training begins or continues."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.title, unit="step"
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write the step that has just been made."""
        if not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        row = {ours: float(logs[theirs]) for theirs, ours in NAMES.items() if theirs in logs}
        row |= {"step": state.global_step, "seconds": self.spent + time.time() - self.started}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.bar:
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix_str(f"reward {row['reward']:.2f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close the bar."""
        if self.bar:
            self.bar.close()
