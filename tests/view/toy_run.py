"""Writes a finished run without a model: drawn samples, invented responses, scores and results.

The seeds of the responses are the probe's, so masks can be drawn again. Texts may be hostile.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.config.difficulty import ProbeConfig
from difftrain.config.run_config import RunConfig
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.probe.run import sampling_seed
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import (
    Attention,
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
)
from difftrain.select.rap import DECISIONS_FOLDER, Decision, Outcome
from difftrain.shapes import benchmarks, pool
from difftrain.train.rollout_log import RolloutLog

SEED = 1
MASK_PERCENTS = [0, 30, 60, 90]
DRAWS = 4
HOSTILE = (
    "<script>window.attacked = true</script><img src=x onerror='window.attacked = true'>"
    "\"' onmouseover=alert(1) \u202eright-to-left \u05e9\u05dc\u05d5\u05dd " + "long" * 3000
)
STRATA = [Stratum.easy, Stratum.medium, Stratum.hard, Stratum.unsolved]
BENCHMARK = "shapes/MMStar"


def finish(folder: Path, settings: Any = None, inputs: dict[str, str] | None = None) -> Path:
    """Write the manifest of a stage, so that it is finished; returns the folder."""
    manifest.write_manifest(folder, settings=settings, inputs=inputs or {}, seconds=1.0, counts={})
    return folder


def toy_samples(size: int) -> list[Sample]:
    """Drawn samples; the first has a hostile question and answer."""
    first, *rest = pool.samples(pool.Split.pool, size)
    return [replace(first, question=HOSTILE, answer=HOSTILE, accepted=(HOSTILE,)), *rest]


def sample_rollouts(sample: Sample, number: int) -> list[Rollout]:
    """Responses under every mask; the more is masked, the fewer are correct."""
    requests = [
        ProbeRequest(sample, percent, draw) for percent in MASK_PERCENTS for draw in range(DRAWS)
    ]
    requests += [ProbeRequest(sample, 0, draw, text_only=True) for draw in range(2)]
    rollouts = []
    for request in requests:
        is_correct = (
            not request.text_only and request.percent + 20 * request.draw < 40 + number % 60
        )
        verdict = Verdict.correct if is_correct else Verdict.incorrect
        if (number + request.draw) % 7 == 0:
            verdict = Verdict.unparsable
        answer = sample.answer if is_correct else "something else"
        rollouts.append(Rollout(
            sample_id=sample.sample_id, view=request.view, mask_percent=request.percent,
            draw=request.draw, seed=sampling_seed(SEED, request),
            response=f"<think>I look at it.</think><answer>{answer}</answer>", num_tokens=12,
            token_ids=(), hit_eos=True, verdict=verdict,
            parsed_answer=None if verdict is Verdict.unparsable else answer,
            parsed_gold=sample.answer, rule="letters",
        ))  # fmt: skip
    return rollouts


def sample_scores(sample_ids: Sequence[str]) -> list[Score]:
    """PISM has four strata in turn, CMAB a value that rises with the number, ACE some gaps."""
    scores = []
    for number, key in enumerate(sample_ids):
        stratum = STRATA[number % 4]
        pism = {Stratum.easy: 0.9, Stratum.medium: 0.6, Stratum.hard: 0.3}.get(stratum, 0.0)
        cmab = 0.05 + number / len(sample_ids)
        cmab_stratum = Stratum.hard if cmab > 0.4 else Stratum.medium
        scores.append(Score(sample_id=key, measure=Measure.pism, value=pism, stratum=stratum))
        scores.append(Score(sample_id=key, measure=Measure.cmab, value=cmab, stratum=cmab_stratum))
        ace = None if number % 5 == 0 else -float(number % 11)
        scores.append(Score(sample_id=key, measure=Measure.ace, value=ace, stratum=None))
    return scores


def write_selection(folder: Path, ids: Sequence[str], reason: str, arm: str, score: str) -> Path:
    """A finished selection of these samples."""
    rows = [Selection(sample_id=key, stage=TrainStage.grpo, reason=reason) for key in ids]
    parquet.write_all(folder, rows)
    settings = {"arm": arm, "strata": ["hard"], "rap": [], "sft_strata": []}
    return finish(folder, settings, {"score": score})


def write_training(folder: Path, sample: Sample) -> Path:
    """A training log of twenty steps whose reward rises, and completions to one sample."""
    folder.mkdir(parents=True)
    task, log = sample.task, RolloutLog(folder, 0)
    for step in (3, 17):
        log.record(step, [sample.sample_id], [f"<answer>step {step}</answer>"], [0.1], [0.0])
    log.write()
    with (folder / "train_log.jsonl").open("w") as file:
        for step in range(1, 21):
            reward = 0.2 + 0.03 * step
            row = {"step": step, "reward": reward, "rewards/accuracy/mean": reward}
            row |= {f"rewards/accuracy/mean/{task}": reward / 2, "rewards/accuracy/mean/hard": 0.1}
            file.write(json.dumps(row) + "\n")
    return finish(folder)


def write_evaluation(folder: Path, shift: int, size: int) -> Path:
    """Results of a built-in benchmark; every third item is right, beginning at `shift`."""
    items = benchmarks.items(BENCHMARK.removeprefix("shapes/"), size)
    results = [
        ItemResult(
            benchmark=BENCHMARK, item_id=str(row["index"]), extracted="A",
            response=HOSTILE if number == 0 else f"I think A, number {number}.",
            score=float((number + shift) % 3 == 0), graded_by=GradedBy.rule, category="all",
        )
        for number, row in enumerate(items)
    ]  # fmt: skip
    parquet.write_all(folder, results)
    (folder / "predictions").mkdir()
    columns = [name for name in items[0] if name != "image"]
    with (folder / "predictions" / "tiny_shapes-MMStar.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        texts = [
            ["" if row.get(name) is None else str(row[name]) for name in columns] for row in items
        ]
        writer.writerows(texts)
    return finish(folder)


def write_run(root: Path, size: int = 60, name: str = "toy", shift: int = 1) -> Path:
    """Write a finished run below `root`; returns its folder under root/run."""
    samples = toy_samples(size)
    ids = [sample.sample_id for sample in samples]
    probe = asdict(ProbeConfig(mask_percents=MASK_PERCENTS, draws=DRAWS)) | {"seed": SEED}
    folders = {stage: root / stage / f"{stage}{name}" for stage in ("data", "probe", "score")}
    parquet.write_all(folders["data"], samples, rows_per_part=20)
    finish(folders["data"])
    rollouts = [row for i, sample in enumerate(samples) for row in sample_rollouts(sample, i)]
    parquet.write_all(folders["probe"], rollouts, rows_per_part=100)
    inputs = {"data": folders["data"].name, "model": resolve.identity("tiny", None)}
    finish(folders["probe"], probe, inputs)
    folders["attention"] = root / "attention" / f"attention{name}"
    measured = [
        Attention(
            sample_id=key, draw=0, image_tokens=16, text_tokens=30, max_log_psi=-3.0,
            image_LT=((0.1, 0.2), (0.3, 0.2), (0.2, 0.1)), text_LT=((0.4, 0.4),) * 3,
        )
        for key in ids[: size // 2]
    ]  # fmt: skip
    parquet.write_all(folders["attention"], measured)
    finish(folders["attention"], inputs={"probe": folders["probe"].name})
    parquet.write_all(folders["score"], sample_scores(ids))
    score = folders["score"].name
    finish(folders["score"], inputs={"probe": folders["probe"].name, "data": folders["data"].name})
    folders["select tuned"] = write_selection(
        root / "select" / f"tuned{name}", ids[2::4], "hard by pism: first fails at 30%", "tuned",
        score,
    )  # fmt: skip
    decisions = [
        Decision(key, Outcome.kept if i % 2 else Outcome.prior, f"D = {i}", 0.5, None, 0.5)
        for i, key in enumerate(ids)
    ]
    parquet.write_all(folders["select tuned"] / DECISIONS_FOLDER, decisions)
    folders["select control"] = write_selection(
        root / "select" / f"control{name}", ids[::4], "drawn at random, one of 9", "control", score
    )
    folders["train tuned"] = write_training(root / "train" / f"tuned{name}", samples[2])
    for arm, arm_shift in (("base", 0), ("tuned", shift)):
        folder = root / "evaluate" / f"{arm}{name}"
        folders[f"evaluate {arm}"] = write_evaluation(folder, arm_shift, 30)
    settings = asdict(RunConfig())
    settings["evaluate"] |= {"benchmarks": [BENCHMARK], "limit": 30}
    settings["model"]["dtype"] = "float32"
    run = root / "run" / name
    run.mkdir(parents=True)
    stages = {stage: {"folder": folder.name} for stage, folder in folders.items()}
    manifest.write_json(run / "report.json", {"settings": settings, "stages": stages})
    return run


def write_large_run(root: Path, size: int, responses: int = 20) -> Path:
    """Write a finished run of `size` samples with so many responses each; returns its folder.

    Few images and texts occur again and again; all ids, scores and verdicts are drawn.
    """
    run = write_run(root, 40, name="large")
    images_of_samples, rng = [sample.images for sample in toy_samples(40)], np.random.default_rng(1)
    for stage in ("data", "probe", "score"):
        for path in parquet.parts(root / stage / f"{stage}large"):
            path.unlink()
    template, ids = toy_samples(2)[1], [f"{number:016x}" for number in range(size)]
    tasks, words = [f"task {number}" for number in range(12)], ["red", "bar", "cup", "row", "tile"]
    parquet.write_all(
        root / "data" / "datalarge",
        (
            replace(
                template, sample_id=key, images=images_of_samples[i % 40], task=tasks[i % 12],
                question=f"Question {i}: " + " ".join(rng.choice(words, 12)), answer=str(i % 17),
            )
            for i, key in enumerate(ids)
        ),
    )  # fmt: skip
    scores = root / "score" / "scorelarge"
    for measure in (Measure.pism, Measure.cmab, Measure.cde, Measure.ace, Measure.drm):
        strata = rng.choice([str(stratum) for stratum in STRATA], size)
        columns = [ids, [str(measure)] * size, rng.random(size), strata]
        table = pa.table(columns, schema=parquet.schema(Score))
        pq.write_table(table, scores / f"part-{measure}.parquet")
    probe, rows_per_part = root / "probe" / "probelarge", 100_000
    verdicts = np.array([str(verdict) for verdict in Verdict])
    for number, start in enumerate(range(0, size * responses, rows_per_part)):
        rows = np.arange(start, min(start + rows_per_part, size * responses))
        draws = rows % responses
        values = {
            "sample_id": np.array(ids)[rows // responses],
            "view": np.where(draws < 5, "full_image", "masked"),
            "mask_percent": 30 * np.minimum(draws // 5, 3),
            "draw": draws % 5,
            "seed": rows,
            "response": np.char.add("<think>I look.</think><answer>B</answer> ", rows.astype(str)),
            "num_tokens": 10 + draws,
            "token_ids": [[]] * len(rows),
            "hit_eos": np.ones(len(rows), bool),
            "verdict": verdicts[rng.integers(0, 3, len(rows))],
            "parsed_answer": ["B"] * len(rows),
            "parsed_gold": ["B"] * len(rows),
            "rule": ["letters"] * len(rows),
        }
        table = pa.table(values).cast(parquet.schema(Rollout))
        pq.write_table(table, probe / f"part-{number:05d}.parquet")
    return run
