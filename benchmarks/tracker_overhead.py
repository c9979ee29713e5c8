"""Compare the time of a GRPO step while trackers follow the training, and while none does.

    python benchmarks/tracker_overhead.py [--steps N] [KEY=VALUE ...]

One training of the tiny model. The processes of TensorBoard and of W&B (offline) start before it,
as in every run, and take turns with none: during a step, the processes of the other trackers are
stopped (SIGSTOP). So other load on the machine affects all alike. A tracker sends in its turn also
the rows of the steps in which it was stopped: of three steps instead of one. The overhead is the
ratio of the median step times. Writes benchmarks/results/tracker_overhead.md and .json.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from difftrain.cli.overrides import compose_config
from difftrain.config.report import Tracker
from difftrain.config.run_config import RunConfig
from difftrain.config.run_config import resolve as resolve_config
from difftrain.grade.pool import GraderPool
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage
from difftrain.report.inputs import ArmFolders, RunInputs
from difftrain.report.trackers.content import FOLDER, TrackerState
from difftrain.report.trackers.live import Follower
from difftrain.shapes import pool
from difftrain.train import callbacks, grpo
from difftrain.train.dataset import TrainData
from difftrain.train.trl_args import TrainJob

RESULTS = Path(__file__).parent / "results"
TRACKERS = (Tracker.tensorboard, Tracker.wandb)
TURNS = ("none", *TRACKERS)
WARM_UP_STEPS = 6
"""The first steps, two of each, which are not counted."""
NUM_SAMPLES = 200
"""Samples to train on: drawings of colored shapes with a question, which difftrain generates."""


class Clock(TrainerCallback):
    """Measures each step, with the logging of the step before it, and changes turns after it."""

    def __init__(self, followers: dict[str, Follower]) -> None:
        self.followers = followers
        self.rng = random.Random(0)
        self.turns: list[str] = []
        self.seconds: list[tuple[str, float]] = []
        self.turn, self.started = "", 0.0

    def begin(self) -> None:
        """Let only the tracker of the next turn run. Three turns in a row are in random order."""
        self.turns = self.turns or self.rng.sample(TURNS, len(TURNS))
        self.turn = self.turns.pop()
        for name, follower in self.followers.items():
            set_running(follower, name == self.turn)
        self.started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the first step."""
        self.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, then begin the next step."""
        self.seconds.append((self.turn, time.perf_counter() - self.started))
        self.begin()


def set_running(follower: Follower, is_running: bool) -> None:
    """Continue or stop a tracker's process, with all that its client has started."""
    process = psutil.Process(follower.process.pid)
    for item in (process, *process.children(recursive=True)):
        item.resume() if is_running else item.suspend()


def run_inputs(config: RunConfig, folder: Path) -> RunInputs:
    """The folders of a run that only trains."""
    arm = ArmFolders(select=folder / "select" / "x", train=folder / "train" / "x")
    return RunInputs(
        folder=folder / "run" / "x",
        settings=asdict(config),
        recipe_difference=[],
        data=folder / "data" / "x",
        probe=folder / "probe" / "x",
        attention=None,
        score=folder / "score" / "x",
        arms={"tuned": arm},
        evaluations={},
        differences={},
    )


def followed_steps(config: RunConfig, folder: Path) -> list[tuple[str, float]]:
    """(turn, seconds) of each step of a training. Fails if a tracker does not get all steps."""
    inputs = run_inputs(config, folder)
    samples = list(pool.samples(pool.Split.pool, NUM_SAMPLES))
    parquet.write_all(inputs.data, samples)
    job = TrainJob(TrainStage.grpo, config, inputs.arms["tuned"].train, World(), title="tuned")
    for path in (job.folder, inputs.folder):
        path.mkdir(parents=True)
    # A stratum is a class of difficulty. Any one will do here: it only labels log entries.
    data = TrainData(samples, eval_samples=(), strata=dict.fromkeys(
        (sample.sample_id for sample in samples), "hard"))  # fmt: skip
    followers = {tracker: Follower(tracker, inputs) for tracker in TRACKERS}
    while not all((inputs.folder / FOLDER / f"{name}.json").is_file() for name in followers):
        time.sleep(0.5)
    clock = Clock(followers)
    with GraderPool(1, timeout_s=20) as graders:
        trainer = grpo.build_trainer(job, data, graders)
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(callbacks.JsonlLogger(job.folder, elapsed=0.0, title="tuned"))
        trainer.add_callback(clock)
        trainer.train()
    for name, follower in followers.items():
        set_running(follower, True)
        follower.send(None)  # the run has ended without a report
        follower.wait(60)
        sent = TrackerState.load(inputs.folder, name).sent
        assert sent["tuned/train_log.jsonl"] == len(clock.seconds), f"{name} has {sent}"
    return clock.seconds[WARM_UP_STEPS:]


def interval(
    seconds: dict[str, list[float]], tracker: str, resamples: int = 4000
) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, over the rounds of turns."""
    rng = random.Random(0)
    rounds = list(zip(seconds[tracker], seconds["none"], strict=True))

    def resampled_ratio() -> float:
        followed, alone = zip(*rng.choices(rounds, k=len(rounds)), strict=True)
        return statistics.median(followed) / statistics.median(alone)

    ratios = sorted(resampled_ratio() for _ in range(resamples))
    return ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]


def page(result: dict[str, Any]) -> str:
    """The content of tracker_overhead.md."""
    rows = [f"| none | {result['median']['none']:.3f} | |"]
    for name, ratio in result["ratio"].items():
        low, high = result["interval"][name]
        rows.append(
            f"| {name} | {result['median'][name]:.3f} | {ratio:.3f} [{low:.3f}, {high:.3f}] |"
        )
    return "\n".join(
        [
            "# What does a live tracker cost training?",
            "",
            f"`{result['command']}`",
            "",
            f"One training; {result['steps']} steps of each, in turns, after {WARM_UP_STEPS} steps "
            f"to warm up; {result['model']}, {result['prompts_per_step']} prompts x "
            f"{result['group_size']} responses, {result['machine']}, {result['threads']} "
            f"thread(s), load of the machine at the start {result['load']:.1f}.",
            "",
            "| tracker | median seconds a step | ratio to none |",
            "|---|--:|--:|",
            *rows,
            "",
            "W&B was offline. A tracker sends in its turn the rows of three steps. Writing the log "
            "and the completions for trackers is part of every step, also with none.",
            "",
            "Versions: "
            + ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
            "",
        ]
    )


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    arguments, overrides = parser.parse_known_args()
    steps = len(TURNS) * arguments.steps + WARM_UP_STEPS
    fixed = ["grpo.eval_samples=0", f"grpo.max_steps={steps}", f"grpo.save_steps={steps + 1}",
             "report_to=[tensorboard,wandb]"]  # fmt: skip
    config = resolve_config(compose_config([*overrides, *fixed]))
    load = os.getloadavg()[0]
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as scratch:
        measured = followed_steps(config, Path(scratch))
    seconds = {turn: [value for name, value in measured if name == turn] for turn in TURNS}
    median = {turn: statistics.median(values) for turn, values in seconds.items()}
    result = {
        "steps": arguments.steps,
        "seconds": seconds,
        "median": median,
        "ratio": {name: median[name] / median["none"] for name in TRACKERS},
        "interval": {name: interval(seconds, name) for name in TRACKERS},
        "model": config.model.name,
        "prompts_per_step": config.grpo.prompts_per_step,
        "group_size": config.grpo.num_generations,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": load,
        "versions": manifest.versions()
        | {name: metadata.version(name) for name in ("tensorboard", "wandb")},
        "command": " ".join(
            ["python benchmarks/tracker_overhead.py", f"--steps {arguments.steps}", *overrides]
        ),
    }
    manifest.write_json(RESULTS / "tracker_overhead.json", result)
    manifest.write_text(RESULTS / "tracker_overhead.md", page(result))
    print(json.dumps({key: result[key] for key in ("median", "ratio", "interval")}, indent=2))


if __name__ == "__main__":
    main()
