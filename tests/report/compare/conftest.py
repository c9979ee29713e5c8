"""Fixtures that write finished runs as difftrain does, with item results of a given accuracy."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from difftrain.evaluate import summary
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult
from difftrain.report.build import build_report
from difftrain.report.compare.presets import preset_of
from difftrain.report.inputs import ArmFolders, RunInputs, load_run

BENCHMARKS = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
ITEMS = 60
FinishRun = Callable[..., Path]
Rates = Mapping[str, float] | float


def item_id(benchmark: str, number: int) -> str:
    """The id of an item; in HallusionBench, four questions belong to one figure."""
    if benchmark != "HallusionBench":
        return f"{number:03d}"
    return f"VD_illusion/1/{number // 4}/{number % 4}"


def make_results(rates: Rates, noise_seed: int, items: int = ITEMS) -> list[ItemResult]:
    """Item results of a run. An item is equally hard in all runs; `noise_seed` varies the run."""
    results = []
    for benchmark in BENCHMARKS:
        rate = rates if isinstance(rates, float) else rates.get(benchmark, 0.5)
        for number in range(items):
            difficulty = Random(f"{benchmark}{number}").random()
            noise = Random(f"{benchmark}{number}/{noise_seed}").gauss(0, 0.08)
            score = float(difficulty + noise < rate)
            if benchmark == "MMVet":
                score = round(10 * max(0.0, min(1.0, rate + noise))) / 10
            results.append(
                ItemResult(
                    benchmark=f"shapes/{benchmark}",
                    item_id=item_id(benchmark, number),
                    response="4",
                    extracted="4",
                    score=score,
                    graded_by=GradedBy.rule,
                    category="",
                )
            )
    return results


def write_evaluation(folder: Path, results: list[ItemResult]) -> Path:
    """A finished evaluation with its summary; an existing one is not changed."""
    if manifest.read_manifest(folder) is not None:
        return folder
    parquet.write_all(folder, results)
    by_benchmark: dict[str, list[ItemResult]] = {}
    for result in results:
        by_benchmark.setdefault(result.benchmark, []).append(result)
    summaries = {
        name: summary.summarize(name, group, resamples=100) for name, group in by_benchmark.items()
    }
    summaries["mean"] = summary.summarize_mean(by_benchmark, resamples=100)
    fields = ("score", "low", "high", "n", "failed", "undecided", "reason")
    content = {
        name: {field: getattr(row, field) for field in fields} for name, row in summaries.items()
    }
    manifest.write_json(folder / "summary.json", content)
    settings = {"system": "think", "rules": "2025-11", "judge": None}
    manifest.write_manifest(folder, settings=settings, inputs={}, seconds=61.0, counts={})
    return folder


def write_training(folder: Path, samples: int, steps: int) -> Path:
    """A finished training with its log."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "reward": 0.4, "seconds": 3.0 * step} for step in range(1, steps + 1)]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = {"steps": steps, "samples": samples, "generations": 64 * steps, "tokens": 1900 * steps}
    manifest.write_manifest(folder, settings=None, inputs={}, seconds=3.0 * steps, counts=counts)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The output folder of the runs."""
    return tmp_path / "outputs"


@pytest.fixture
def results_at() -> Callable[..., list[ItemResult]]:
    """A function that makes item results."""
    return make_results


@pytest.fixture
def finish_run(make_run: Callable[..., RunInputs], root: Path) -> FinishRun:
    """A function that writes a finished run and returns its folder.

    `rate` is the accuracy of the tuned arm, `control` that of the run's own random control;
    `settings` are overrides by full key.
    """
    toy = make_run(size=9, control=True)

    def write(
        name: str,
        rate: Rates,
        *,
        seed: int = 1,
        control: Rates | None = None,
        settings: Mapping[str, object] | None = None,
        results: list[ItemResult] | None = None,
    ) -> Path:
        tree = json.loads(json.dumps(toy.settings))
        tree |= {"name": name, "recipe": name, "seed": seed, "output_dir": str(root)}
        for key, value in {**preset_of(name).settings, **(settings or {})}.items():
            *parents, last = key.split(".")
            node = tree
            for part in parents:
                node = node[part]
            node[last] = value
        fingerprint = manifest.fingerprint(tree, str(rate), str(control))
        evaluations = {"base": write_evaluation(root / "evaluate" / "base", make_results(0.4, 0))}
        rates, arms = {"tuned": rate} | ({"control": control} if control is not None else {}), {}
        for arm, arm_rate in rates.items():
            noise_seed = 1000 * seed + sum(map(ord, name + arm))
            use_results = results is not None and arm == "tuned"
            arm_results = results if use_results else make_results(arm_rate, noise_seed)
            trained = manifest.fingerprint(name, arm, str(seed), str(arm_rate), str(settings))
            folder = root / "train" / trained
            if not folder.exists():
                write_training(folder, samples=96, steps=20)
            arms[arm] = ArmFolders(select=toy.arms[arm].select, train=folder)
            evaluations[arm] = write_evaluation(root / "evaluate" / trained, arm_results)
        inputs = replace(
            toy,
            folder=root / "run" / f"{name}-{fingerprint}",
            settings=tree,
            recipe_difference=[f"name={name}"],
            arms=arms,
            evaluations=evaluations,
            differences={},
        )
        manifest.write_json(inputs.folder / "report.json", build_report(inputs, load_run(inputs)))
        return inputs.folder

    return write
