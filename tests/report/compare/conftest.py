"""Fixtures that write finished runs as difftrain does, with a given accuracy on benchmarks."""

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
NUM_ITEMS = 60  # of every benchmark
FinishRun = Callable[..., Path]
Rates = Mapping[str, float] | float  # accuracy by benchmark, or of all benchmarks


def item_id(benchmark: str, number: int) -> str:
    """The id of an item. Four items of HallusionBench ask about the same figure."""
    if benchmark != "HallusionBench":
        return f"{number:03d}"
    return f"VD_illusion/1/{number // 4}/{number % 4}"


def make_results(rates: Rates, noise_seed: int, num_items: int = NUM_ITEMS) -> list[ItemResult]:
    """Item results of a run with these accuracies.

    The difficulty of an item, from 0 to 1, is the same in all runs. `noise_seed` determines the
    noise of this run; its standard deviation is only 0.08, so that paired differences have narrow
    intervals.
    """
    results = []
    for benchmark in BENCHMARKS:
        rate = rates if isinstance(rates, float) else rates.get(benchmark, 0.5)
        for number in range(num_items):
            difficulty = Random(f"{benchmark}{number}").random()
            noise = Random(f"{benchmark}{number}/{noise_seed}").gauss(0, 0.08)
            score = float(difficulty + noise < rate)
            if benchmark == "MMVet":  # its scores are tenths, all others are 0 or 1
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
    """Write a finished evaluation with its summary; an existing evaluation is not changed."""
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
    # The system prompt, the version of the scoring rules, and no judge (a model that scores).
    settings = {"system": "think", "rules": "2025-11", "judge": None}
    manifest.write_manifest(folder, settings=settings, inputs={}, seconds=61.0, counts={})
    return folder


def write_training(folder: Path, samples: int, steps: int) -> Path:
    """Write a finished training with its log: 64 responses and 1900 tokens in each step of 3 s."""
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
def item_results_of() -> Callable[..., list[ItemResult]]:
    """make_results(), which returns item results with given accuracies."""
    return make_results


@pytest.fixture
def finish_run(make_run: Callable[..., RunInputs], root: Path) -> FinishRun:
    """A function that writes a finished run and returns its folder.

    `rate` is the accuracy of the trained model, `control` the accuracy of the run's own random
    control (None: it has no control). `settings` are overrides, such as {"data.num_samples": 80}.
    `results` replaces the item results that `rate` gives.
    """
    template = make_run(size=9, control=True)  # all stages but training and evaluation are shared

    def write(
        name: str,
        rate: Rates,
        *,
        seed: int = 1,
        control: Rates | None = None,
        settings: Mapping[str, object] | None = None,
        results: list[ItemResult] | None = None,
    ) -> Path:
        run_settings = json.loads(json.dumps(template.settings))
        run_settings |= {"name": name, "recipe": name, "seed": seed, "output_dir": str(root)}
        for key, value in {**preset_of(name).settings, **(settings or {})}.items():
            *parents, last = key.split(".")
            section = run_settings
            for parent in parents:
                section = section[parent]
            section[last] = value
        fingerprint = manifest.fingerprint(run_settings, str(rate), str(control))
        evaluations = {"base": write_evaluation(root / "evaluate" / "base", make_results(0.4, 0))}
        rates = {"tuned": rate} | ({"control": control} if control is not None else {})
        arms = {}
        for arm, arm_rate in rates.items():
            noise_seed = 1000 * seed + sum(map(ord, name + arm))  # another for each trained model
            use_results = results is not None and arm == "tuned"
            arm_results = results if use_results else make_results(arm_rate, noise_seed)
            folder_name = manifest.fingerprint(name, arm, str(seed), str(arm_rate), str(settings))
            folder = root / "train" / folder_name
            if not folder.exists():
                write_training(folder, samples=96, steps=20)
            arms[arm] = ArmFolders(select=template.arms[arm].select, train=folder)
            evaluations[arm] = write_evaluation(root / "evaluate" / folder_name, arm_results)
        inputs = replace(
            template,
            folder=root / "run" / f"{name}-{fingerprint}",
            settings=run_settings,
            recipe_difference=[f"name={name}"],
            arms=arms,
            evaluations=evaluations,
            differences={},
        )
        manifest.write_json(inputs.folder / "report.json", build_report(inputs, load_run(inputs)))
        return inputs.folder

    return write
