"""Compare the time of a GRPO step that shares nothing with that of a plain TRL script.

    python benchmarks/train_overhead.py [--steps N] [KEY=VALUE ...]

Shared prompts and the engine's rollouts are off (benchmarks/grpo_step.py measures those), so only
difftrain's rewards, callbacks and logs differ. Both trainers use the same settings, model, data and
rewards. They run in this process and take turns, one optimizer step each, so that other load on the
machine affects both alike. Before each step both set the same seed, so they generate the same
completions and end with identical weights; the script checks that. The overhead is the ratio of the
median step times. Writes benchmarks/results/train_overhead.md and .json. About three minutes on two
free cores with 40 steps.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain import images
from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig
from difftrain.config.run_config import resolve as resolve_config
from difftrain.data import prompts
from difftrain.grade import grade
from difftrain.grade.extract import has_expected_format
from difftrain.grade.pool import GraderPool
from difftrain.model import family, loading, resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.records import Sample, TrainStage, Verdict
from difftrain.shapes import pool
from difftrain.train import callbacks, grpo, trl_args
from difftrain.train.dataset import TrainData
from difftrain.train.param_groups import GradientCheck
from difftrain.train.trl_args import TrainJob

RESULTS = Path(__file__).parent / "results"
MAX_RATIO = 1.03
"""The largest acceptable ratio of our step to the plain script's."""
WARM_UP_STEPS = 4
"""The first steps of each trainer, which are not counted."""
NUM_SAMPLES = 200
"""Samples to train on: drawings of colored shapes with a question, which difftrain generates."""


class Turns:
    """Lets the threads of two trainers, "plain" and "ours", alternate after every step."""

    def __init__(self) -> None:
        self.turns = {"plain": threading.Event(), "ours": threading.Event()}
        self.turns["plain"].set()

    def end_turn(self, trainer_name: str) -> None:
        """Let the other trainer run."""
        self.turns[trainer_name].clear()
        self.turns["ours" if trainer_name == "plain" else "plain"].set()

    def wait_for_turn(self, trainer_name: str) -> None:
        """Wait until it is this trainer's turn."""
        self.turns[trainer_name].wait()


class Clock(TrainerCallback):
    """Measures the seconds of each turn: one step, and the logging of the step before it."""

    def __init__(self, trainer_name: str, turns: Turns, steps: int) -> None:
        self.trainer_name, self.turns, self.steps = trainer_name, turns, steps
        self.seconds: list[float] = []
        self.started = 0.0

    def begin(self, step: int) -> None:
        """Wait for the turn, set the seeds, start the clock."""
        self.turns.wait_for_turn(self.trainer_name)
        torch.manual_seed(step)
        random.seed(step)
        self.started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the first step."""
        self.begin(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, let the other trainer make a step, then begin the next one."""
        self.seconds.append(time.perf_counter() - self.started)
        self.turns.end_turn(self.trainer_name)
        if state.global_step < self.steps:
            self.begin(state.global_step)


def job_of(config: RunConfig, folder: Path) -> TrainJob:
    """The training job of a single process; both trainers have the same settings."""
    return TrainJob(TrainStage.grpo, config, folder, World(), title="ours")


def plain_trainer(config: RunConfig, samples: list[Sample], folder: Path) -> Any:
    """A script without difftrain: TRL, a dataset in memory, two reward functions."""
    processor = loading.load_processor(config.model, config.data.min_pixels, config.data.max_pixels)
    by_id = {sample.sample_id: sample for sample in samples}

    # TRL logs a reward under the name of its function.
    def accuracy(completions: list[Any], sample_id: list[str], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        pairs = zip(texts, sample_id, strict=True)
        return [float(grade(text, by_id[key]) is Verdict.correct) for text, key in pairs]

    def format(completions: list[Any], **_: Any) -> list[float]:
        return [float(has_expected_format(completion[0]["content"])) for completion in completions]

    rows = [
        {
            "prompt": [
                {"role": "system", "content": prompts.SYSTEM},
                {"role": "user", "content": prompts.user_text(sample.question, sample.options)},
            ],
            "images": [images.from_png(png) for png in sample.images],
            "sample_id": sample.sample_id,
        }
        for sample in samples
    ]
    banned = family.banned_tokens(processor)  # image placeholders, which must not be sampled
    return GRPOTrainer(
        model=resolve.source(config.model.name),
        reward_funcs=[accuracy, format],
        args=trl_args.grpo_arguments(job_of(config, folder), banned),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
    )


def our_trainer(config: RunConfig, samples: list[Sample], folder: Path, workers: GraderPool) -> Any:
    """The trainer of recipes/grpo.py, with its log and its check of gradients."""
    # A stratum is a class of difficulty. Any one will do here: it only labels log entries.
    strata = {sample.sample_id: "hard" for sample in samples}
    data = TrainData(samples, eval_samples=(), strata=strata)
    trainer = grpo.build_trainer(job_of(config, folder), data, workers)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(callbacks.JsonlLogger(folder, elapsed=0.0, title="ours"))
    # Every sample has an image, so none is text-only, and the vision parts must get gradients.
    trainer.add_callback(GradientCheck(trainer.model, frozen=(), has_text_only=False))
    return trainer


def step_seconds(config: RunConfig, steps: int) -> dict[str, list[float]]:
    """Seconds of each trainer's steps after the warm-up. Fails if the final weights differ."""
    # Split.pool: drawings for training, as opposed to pretraining and benchmarks.
    samples, turns = list(pool.samples(pool.Split.pool, NUM_SAMPLES)), Turns()
    with tempfile.TemporaryDirectory() as scratch, GraderPool(1, timeout_s=20) as workers:
        trainers = {
            "plain": plain_trainer(config, samples, Path(scratch) / "plain"),
            "ours": our_trainer(config, samples, Path(scratch) / "ours", workers),
        }
        clocks = {name: Clock(name, turns, steps) for name in trainers}
        for name, trainer in trainers.items():
            trainer.remove_callback(ProgressCallback)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(clocks[name])
        threads = [threading.Thread(target=trainer.train) for trainer in trainers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        weights = [trainer.model.state_dict() for trainer in trainers.values()]
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert same, "the trainers' weights differ: their steps cannot be compared"
    return {name: clock.seconds[WARM_UP_STEPS:] for name, clock in clocks.items()}


def interval(seconds: dict[str, list[float]], resamples: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, over pairs of steps."""
    rng = random.Random(0)
    pairs = list(zip(seconds["ours"], seconds["plain"], strict=True))

    def resampled_ratio() -> float:
        resample = rng.choices(pairs, k=len(pairs))
        ours, plain = zip(*resample, strict=True)
        return statistics.median(ours) / statistics.median(plain)

    ratios = sorted(resampled_ratio() for _ in range(resamples))
    return ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]


def page(result: dict[str, Any]) -> str:
    """The content of train_overhead.md."""
    low, high = result["interval"]
    return "\n".join(
        [
            "# What does our training step cost over a plain TRL script's?",
            "",
            f"`{result['command']}`",
            "",
            f"{result['steps']} optimizer steps each, taken in turns in one process after "
            f"{WARM_UP_STEPS} steps to warm up; {result['model']}, "
            f"{result['prompts_per_step']} prompts x {result['group_size']} responses, "
            f"{result['device']}, {result['threads']} thread(s). Both use the same seeds and end "
            "with the same weights, bit for bit.",
            "",
            "| | median seconds a step |",
            "|---|--:|",
            f"| plain TRL script | {result['median']['plain']:.3f} |",
            f"| difftrain | {result['median']['ours']:.3f} |",
            "",
            f"Ratio of medians **{result['ratio']:.3f}** [{low:.3f}, {high:.3f}] (limit: "
            f"{MAX_RATIO}).",
            "",
            "Only difftrain grades in a worker process that can be killed, logs metrics by task "
            "and stratum, warns of reward hacking, writes one log line a step, and decodes each "
            "image once for its group. Neither writes checkpoints or evaluates.",
            "",
        ]
    )


def main() -> None:
    """Measure and write the result; exit code 1 if the ratio is above MAX_RATIO."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    arguments, overrides = parser.parse_known_args()
    steps = arguments.steps + WARM_UP_STEPS
    fixed = [
        "grpo.shared_prompt=never",
        "grpo.rollouts=generate",
        "grpo.eval_samples=0",
        f"grpo.max_steps={steps}",
        f"grpo.save_steps={steps + 1}",
    ]
    config = resolve_config(compose_config([*overrides, *fixed]))
    seconds = step_seconds(config, steps)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "steps": arguments.steps,
        "seconds": seconds,
        "median": median,
        "ratio": median["ours"] / median["plain"],
        "interval": interval(seconds),
        "model": config.model.name,
        "prompts_per_step": config.grpo.prompts_per_step,
        "group_size": config.grpo.num_generations,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": manifest.versions(),
        "command": " ".join(
            ["python benchmarks/train_overhead.py", f"--steps {arguments.steps}", *overrides]
        ),
    }
    manifest.write_json(RESULTS / "train_overhead.json", result)
    manifest.write_text(RESULTS / "train_overhead.md", page(result))
    print(json.dumps({key: result[key] for key in ("median", "ratio", "interval")}, indent=2))
    raise SystemExit(result["ratio"] > MAX_RATIO)


if __name__ == "__main__":
    main()
