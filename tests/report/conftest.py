"""A complete toy run on disk: shapes samples, hand-written rollouts, scores, logs, results."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest

from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.evaluate import BUILT_IN
from difftrain.config.run_config import Control, RunConfig
from difftrain.pipeline import manifest, parquet
from difftrain.records import (
    GradedBy,
    ItemResult,
    Measure,
    Rollout,
    Sample,
    Score,
    Selection,
    Stratum,
    TrainStage,
    Verdict,
    View,
)
from difftrain.report.build import write_report
from difftrain.report.inputs import ArmFolders, RunInputs
from difftrain.shapes import pool

MASK_PERCENTS = list(range(0, 100, 10))
NUM_DRAWS = 4
BETTER = {"mean": 0.071, "low": 0.030, "high": 0.112, "n": 720}
UNCLEAR = {"mean": 0.021, "low": -0.018, "high": 0.060, "n": 720}
UNCLEAR_REVERSED = {"mean": -0.021, "low": -0.060, "high": 0.018, "n": 720}

MakeRun = Callable[..., RunInputs]


def rollout(sample: Sample, percent: int, draw: int, verdict: Verdict) -> Rollout:
    text = {
        Verdict.correct: f"<think>I see it.</think><answer>{sample.answer}</answer>",
        Verdict.incorrect: "<think>Too dark to tell, so I guess.</think><answer>17</answer>",
        Verdict.unparsable: "<think>I see I see I see",
    }[verdict]
    return Rollout(
        sample_id=sample.sample_id,
        view=View.masked if percent else View.full_image,
        mask_percent=percent,
        draw=draw,
        seed=draw,
        response=text,
        num_tokens=9,
        token_ids=(1, 2, 3),
        hit_eos=verdict is not Verdict.unparsable,
        verdict=verdict,
    )


def masked_rollouts(sample: Sample, fails_at: int | None) -> list[Rollout]:
    """A sample's rollouts with early stopping; it first fails with `fails_at` percent masked."""
    rollouts = []
    for percent in MASK_PERCENTS:
        if percent == fails_at:
            failed = [Verdict.incorrect] * (NUM_DRAWS - 1) + [Verdict.unparsable]
            return rollouts + [rollout(sample, percent, d, v) for d, v in enumerate(failed)]
        rollouts.append(rollout(sample, percent, 0, Verdict.correct))
    return rollouts


def stratum_of(fails_at: int | None) -> Stratum:
    if fails_at is None or fails_at >= 70:
        return Stratum.easy
    if fails_at == 0:
        return Stratum.unsolved
    return Stratum.hard if fails_at <= 40 else Stratum.medium


def finish_stage(folder: Path, seconds: float, counts: dict, settings: object = None) -> Path:
    manifest.write_manifest(folder, settings=settings, inputs={}, seconds=seconds, counts=counts)
    return folder


def write_training(folder: Path, steps: int, gain: float, samples: int) -> Path:
    """A finished training run whose reward rises by `gain`."""
    rng = Random(steps * 100 + int(gain * 100))
    folder.mkdir(parents=True)
    with (folder / "train_log.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {
                "step": step,
                "reward": 0.3 + gain * step / steps + rng.uniform(-0.08, 0.08),
                "frac_reward_zero_std": max(
                    0.0, 0.35 + 0.2 * step / steps + rng.uniform(-0.2, 0.2)
                ),
                "completions/mean_length": 40 + rng.uniform(-6, 6),
                "rewards/accuracy/mean/stratum/hard": 0.25 + gain * step / steps,
                "completions/mean_length/stratum/hard": 42.0,
                "frac_reward_zero_std/stratum/hard": 0.125,
                "seconds": 1.5,
            }
            file.write(json.dumps(row) + "\n")
    counts = {"steps": steps, "generations": steps * 64, "tokens": steps * 2560, "samples": samples}
    return finish_stage(folder, 1.5 * steps, counts)


def write_evaluation(folder: Path, mean: float) -> Path:
    """A finished evaluation with this mean score over the shapes/ benchmarks."""
    summary = {}
    for index, name in enumerate(BUILT_IN):
        score = mean + 0.05 * (index - 2.5)
        summary[name] = {"score": score, "low": score - 0.08, "high": score + 0.08, "n": 120}
        summary[name]["failed"] = 0
    summary["mean"] = {"score": mean, "low": mean - 0.03, "high": mean + 0.03, "n": 720}
    result = ItemResult(
        benchmark=BUILT_IN[0], item_id="1", response="4", extracted="4", score=1.0,
        graded_by=GradedBy.rule, category="",
    )  # fmt: skip
    parquet.write_part(folder, "00000", [result])
    manifest.write_json(folder / "summary.json", summary)
    settings = {"system": "think", "answer_tags": "strip", "rules": "2025-11", "judge": None}
    return finish_stage(folder, 61.0, {"items": 720}, settings)


def make_scores(samples: list[Sample], fails_at: dict[str, int | None], rng: Random) -> list[Score]:
    scores = []
    for sample in samples:
        percent = fails_at[sample.sample_id]
        value = None if percent is None else percent / 100
        scores.append(
            Score(
                sample_id=sample.sample_id,
                measure=Measure.pism,
                value=value,
                stratum=stratum_of(percent),
            )
        )
    for sample in samples:
        solved = fails_at[sample.sample_id] != 0
        rho = rng.lognormvariate(-0.4, 0.7) if solved else None
        stratum = Stratum.unsolved
        if rho is not None:
            stratum = Stratum.hard if 0.4 <= rho <= 1.6 else Stratum.easy
        scores.append(
            Score(sample_id=sample.sample_id, measure=Measure.cmab, value=rho, stratum=stratum)
        )
    return scores


def write_selection(folder: Path, ids: list[str], reason: str) -> Path:
    picks = [Selection(sample_id=id_, stage=TrainStage.grpo, reason=reason) for id_ in ids]
    parquet.write_all(folder, picks)
    return finish_stage(folder, 0.1, {"picks": len(picks)})


def settings(control: bool) -> dict:
    difficulty = DifficultyConfig(extra_measures=[Measure.cmab])
    config = RunConfig(difficulty=difficulty, control=Control.random if control else Control.none)
    config.probe.draws = NUM_DRAWS
    return asdict(config)


@pytest.fixture(scope="session")
def written(make_run: MakeRun) -> tuple[RunInputs, dict]:
    """A toy run with its report: the inputs and the content of report.json."""
    inputs = make_run()
    return inputs, write_report(inputs)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A function that writes a finished toy run and returns its RunInputs."""

    def make(
        *, size: int = 24, control: bool = True, difference: dict | None = None, response: str = ""
    ) -> RunInputs:
        rng = Random(size)
        samples = list(pool.samples(pool.Split.pool, size))
        percents = [0, 10, 20, 30, 40, 50, 60, 80, None]
        fails_at = {row.sample_id: percents[n % len(percents)] for n, row in enumerate(samples)}
        rollouts = [
            row for sample in samples for row in masked_rollouts(sample, fails_at[sample.sample_id])
        ]
        if response:
            rollouts = [replace(row, response=response) for row in rollouts]
        root = tmp_path_factory.mktemp("report")
        store = root / "artifacts"
        parquet.write_all(store / "data", samples)
        quarantine = [{"source": "extra.jsonl:7", "reason": "image cannot be decoded"}] * 2
        (store / "data" / "quarantine.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in quarantine)
        )
        rows = {"rows": size + 2, "samples": size, "quarantined": 2}
        finish_stage(store / "data", 0.4, rows | {"reasons": {"image cannot be decoded": 2}})
        parquet.write_all(store / "probe", rollouts)
        counts = {"generations": len(rollouts), "tokens": sum(row.num_tokens for row in rollouts)}
        finish_stage(store / "probe", 412.0, counts)
        parquet.write_all(store / "score", make_scores(samples, fails_at, rng))
        finish_stage(store / "score", 0.2, {"scores": 2 * size})
        hard = [id_ for id_, at in fails_at.items() if stratum_of(at) is Stratum.hard]
        arms = {"tuned": (hard, "pism: hard", 0.35)}
        if control:
            arms["control"] = (
                rng.sample(sorted(fails_at), len(hard)),
                "random, of the size of hard",
                0.2,
            )
        folders = {
            arm: ArmFolders(
                select=write_selection(store / f"select-{arm}", ids, reason),
                train=write_training(store / f"train-{arm}", 80, gain, len(ids)),
            )
            for arm, (ids, reason, gain) in arms.items()
        }
        means = {"base": 0.412, "tuned": 0.483} | ({"control": 0.462} if control else {})
        differences = {"tuned - base": difference or BETTER}
        if control:
            # As the pipeline writes them: the arm that was trained later minus the earlier one.
            differences |= {"control - tuned": UNCLEAR_REVERSED, "control - base": UNCLEAR}
        return RunInputs(
            folder=root / "grpo_hard-0123456789ab",
            settings=settings(control),
            recipe_difference=["select.strata: [hard]"],
            data=store / "data",
            probe=store / "probe",
            attention=None,
            score=store / "score",
            arms=folders,
            evaluations={
                arm: write_evaluation(store / f"evaluate-{arm}", mean)
                for arm, mean in means.items()
            },
            differences=differences,
        )

    return make
