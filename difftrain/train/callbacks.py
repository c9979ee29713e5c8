"""What is written while TRL trains: one line a step, looks at held-out samples, a progress bar."""

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from difftrain.grade import reward_hacking
from difftrain.grade.reward_hacking import Alarm
from difftrain.train.spread import DEAD, TOKENS, WHOLE
from difftrain.train.watch import ANSWERS, SUM

NAMES = {
    "reward": "reward",
    "rewards/correct/mean": "reward_correct",
    "rewards/layout/mean": "reward_layout",
    "rewards/length/mean": "reward_length",
    "frac_reward_zero_std": "dead_groups",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
    "kl": "kl",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}
"""TRL's names of the curves, and ours."""
LOG = "train_log.jsonl"
HELD_OUT = "eval_log.jsonl"
"""A line for each look at the held-out samples: step, share right, answers."""


def read_log(folder: Path, name: str = LOG) -> list[dict[str, float]]:
    """The steps logged so far, in order; a half-written last line is left out."""
    path = folder / name
    if not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def truncate_log(folder: Path, last_step: int) -> float:
    """Forget the steps after the checkpoint that training continues from; seconds spent so far."""
    kept: list[dict[str, float]] = []
    for name in (HELD_OUT, LOG):
        kept = [row for row in read_log(folder, name) if row["step"] <= last_step]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in kept))
    return kept[-1]["seconds"] if kept else 0.0


def summed_up(logs: dict[str, float], processes: int) -> dict[str, float]:
    """Shares of answers with each alarm's sign; reward, length, dead groups by task and stratum.

    TRL gives each sum as its mean over processes. A group without an answer in the step is left
    out, not zero; `answers/<group>` is how many answers a group's means are taken over.
    """
    sums = {name.removeprefix(SUM): value for name, value in logs.items() if name.startswith(SUM)}
    found = {}
    for name, value in sums.items():
        kind, _, group = name.partition("/")
        if kind == "alarms":
            found[name] = value / sums[ANSWERS]
        elif kind == DEAD:
            if prompts := sums[f"{WHOLE}/{group}"]:
                found[f"dead_groups/{group}"] = value / prompts
        elif kind == TOKENS:
            if answers := sums[f"{ANSWERS}/{group}"]:
                found[f"length/{group}"] = value / answers
        elif kind == ANSWERS and group and value:
            found[name] = value * processes
        elif kind not in (ANSWERS, WHOLE) and sums[f"{ANSWERS}/{group}"]:
            found[f"reward_{name}"] = value / sums[f"{ANSWERS}/{group}"]
    if "completions/clipped_ratio" in logs:
        found[f"alarms/{Alarm.truncated}"] = logs["completions/clipped_ratio"]
    return found


class StepLog(TrainerCallback):
    """Appends a line a step to log.jsonl and shows a number and the time left; first rank only.

    `shown` is that number's name, which every line of a step has: reward, or SFT's loss.
    """

    def __init__(self, folder: Path, spent: float, title: str, shown: str = "reward") -> None:
        self.folder, self.spent, self.title, self.shown = folder, spent, title, shown
        self.started = time.time()
        self.bar: tqdm | None = None
        self.rung: set[Alarm] = set()

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
        """Write the step that has just been made, or the look that has just been taken."""
        if not state.is_world_process_zero or not logs:
            return
        if "eval_rewards/correct/mean" in logs:
            look = {"step": state.global_step, "held_out": float(logs["eval_rewards/correct/mean"])}
            self.append(HELD_OUT, look)
        if self.shown not in logs:
            return
        row = {ours: float(logs[theirs]) for theirs, ours in NAMES.items() if theirs in logs}
        row |= summed_up(logs, args.world_size)
        row |= {"step": state.global_step, "seconds": self.spent + time.time() - self.started}
        self.append(LOG, row)
        self.ring(state.global_step)
        if self.bar:
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix_str(f"{self.shown} {row[self.shown]:.2f}")

    def append(self, name: str, row: dict[str, float]) -> None:
        """One line more."""
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def ring(self, step: int) -> None:
        """Say once of each alarm that its share over the last steps is above its limit."""
        if step % reward_hacking.ALARM_WINDOW:
            return
        rows = read_log(self.folder)[-reward_hacking.ALARM_WINDOW :]
        for alarm, limit in reward_hacking.ALARM_LIMITS.items():
            share = reward_hacking.max_mean_share([row.get(f"alarms/{alarm}", 0.0) for row in rows])
            if share > limit and alarm not in self.rung:
                self.rung.add(alarm)
                told = f"{share:.0%} of the answers: {reward_hacking.ALARM_MEANINGS[alarm]}"
                tqdm.write(f"alarm at step {step}, {alarm}: {told}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close the bar."""
        if self.bar:
            self.bar.close()
