"""A complete toy run on disk: generated samples of shapes, and invented responses and results.

PISM and CMAB are measures of difficulty. By PISM, a sample is the easier the more of its image must
be masked until the model fails. An arm is a model of the run: base, tuned or control.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import cycle
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
# Differences of mean scores with their 95 % intervals: BETTER excludes zero, UNCLEAR includes it.
# n is the number of items: 120 in each of six benchmarks.
BETTER = {"mean": 0.071, "low": 0.030, "high": 0.112, "n": 720}
UNCLEAR = {"mean": 0.021, "low": -0.018, "high": 0.060, "n": 720}
UNCLEAR_REVERSED = {"mean": -0.021, "low": -0.060, "high": 0.018, "n": 720}

MakeRun = Callable[..., RunInputs]


def rollout(sample: Sample, percent: int, draw: int, verdict: Verdict) -> Rollout:
    """A response with this verdict to the image with `percent` of it masked."""
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


def masked_rollouts(sample: Sample, failure_percent: int | None) -> list[Rollout]:
    """A sample's responses to more and more masked images, until it fails (None: it never fails).

    The probe stops there, too. Before the failure, one correct response is enough for a decision.
    """
    rollouts = []
    for percent in MASK_PERCENTS:
        if percent == failure_percent:
            verdicts = [Verdict.incorrect] * (NUM_DRAWS - 1) + [Verdict.unparsable]
            failures = [
                rollout(sample, percent, draw, verdict) for draw, verdict in enumerate(verdicts)
            ]
            return rollouts + failures
        rollouts.append(rollout(sample, percent, 0, Verdict.correct))
    return rollouts


def stratum_of(failure_percent: int | None) -> Stratum:
    """The stratum by PISM; 40 and 70 percent are the default bounds of hard and easy."""
    if failure_percent is None or failure_percent >= 70:
        return Stratum.easy
    if failure_percent == 0:
        return Stratum.unsolved
    return Stratum.hard if failure_percent <= 40 else Stratum.medium


def finish_stage(folder: Path, seconds: float, counts: dict, settings: object = None) -> Path:
    """Write the manifest of a stage's folder, so that the stage is finished; returns the folder."""
    manifest.write_manifest(folder, settings=settings, inputs={}, seconds=seconds, counts=counts)
    return folder


def write_training(folder: Path, steps: int, gain: float, samples: int) -> Path:
    """Write a finished training run whose reward rises by `gain`. Other numbers are arbitrary."""
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
    """Write a finished evaluation with this mean score over the six shapes/ benchmarks."""
    summary = {}
    for index, name in enumerate(BUILT_IN):
        score = mean + 0.05 * (index - 2.5)  # 2.5 is the mean of the six indices
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


def make_scores(
    samples: list[Sample], failure_percents: dict[str, int | None], rng: Random
) -> list[Score]:
    """PISM scores, then CMAB scores: random attention balances, None for unsolved samples."""
    scores = []
    for sample in samples:
        percent = failure_percents[sample.sample_id]
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
        is_solved = failure_percents[sample.sample_id] != 0
        balance = rng.lognormvariate(-0.4, 0.7) if is_solved else None
        stratum = Stratum.unsolved
        if balance is not None:
            # CMAB's default limits of hard; medium is left out here.
            stratum = Stratum.hard if 0.4 <= balance <= 1.6 else Stratum.easy
        scores.append(
            Score(sample_id=sample.sample_id, measure=Measure.cmab, value=balance, stratum=stratum)
        )
    return scores


def write_selection(folder: Path, ids: list[str], reason: str) -> Path:
    """Write a finished selection of these samples."""
    selections = [
        Selection(sample_id=sample_id, stage=TrainStage.grpo, reason=reason) for sample_id in ids
    ]
    parquet.write_all(folder, selections)
    return finish_stage(folder, 0.1, {"picks": len(selections)})


def settings(control: bool) -> dict:
    """The settings of the toy run, with or without a random control."""
    difficulty = DifficultyConfig(extra_measures=[Measure.cmab])
    config = RunConfig(difficulty=difficulty, control=Control.random if control else Control.none)
    config.probe.draws = NUM_DRAWS
    return asdict(config)


@pytest.fixture(scope="session")
def run_and_report(make_run: MakeRun) -> tuple[RunInputs, dict]:
    """A toy run with its report: its RunInputs and the content of report.json."""
    inputs = make_run()
    return inputs, write_report(inputs)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A function that writes a finished toy run and returns its RunInputs.

    `size` is the number of samples, `control` says whether the run has a random control,
    `difference` is the difference tuned - base, `response` replaces the text of all responses.
    Durations are arbitrary.
    """

    def make(
        *, size: int = 24, control: bool = True, difference: dict | None = None, response: str = ""
    ) -> RunInputs:
        rng = Random(size)  # so that equal arguments give equal runs
        samples = list(pool.samples(pool.Split.pool, size))
        percents = cycle([0, 10, 20, 30, 40, 50, 60, 80, None])
        ids = [sample.sample_id for sample in samples]
        failure_percents = dict(zip(ids, percents, strict=False))
        rollouts = [
            row
            for sample in samples
            for row in masked_rollouts(sample, failure_percents[sample.sample_id])
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
        parquet.write_all(store / "score", make_scores(samples, failure_percents, rng))
        finish_stage(store / "score", 0.2, {"scores": 2 * size})
        hard_ids = [
            sample_id
            for sample_id, percent in failure_percents.items()
            if stratum_of(percent) is Stratum.hard
        ]
        arms = {"tuned": (hard_ids, "pism: hard", 0.35)}
        if control:
            random_ids = rng.sample(sorted(ids), len(hard_ids))
            arms["control"] = (random_ids, "random, of the size of hard", 0.2)
        folders = {
            arm: ArmFolders(
                select=write_selection(store / f"select-{arm}", selected_ids, reason),
                train=write_training(
                    store / f"train-{arm}", steps=80, gain=gain, samples=len(selected_ids)
                ),
            )
            for arm, (selected_ids, reason, gain) in arms.items()
        }
        means = {"base": 0.412, "tuned": 0.483} | ({"control": 0.462} if control else {})
        differences = {"tuned - base": difference or BETTER}
        if control:
            # As recipes/benchmarks.py does: always the later arm minus the earlier one, in the
            # order base, tuned, control. The report turns control - tuned around.
            differences |= {"control - tuned": UNCLEAR_REVERSED, "control - base": UNCLEAR}
        return RunInputs(
            folder=root / "grpo_hard-0123456789ab",
            settings=settings(control),
            recipe_difference=["select.strata: [hard]"],  # the settings that the recipe changes
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
