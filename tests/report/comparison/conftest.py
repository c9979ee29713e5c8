"""Finished runs in the layout of outputs/, through the real writers, with marks made to order."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from difftrain.evaluate import summary
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult
from difftrain.report.build import gather
from difftrain.report.compare.presets import row_of
from difftrain.report.inputs import ArmFolders, RunInputs, load_run

BENCHMARKS = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
ITEMS = 60
MakeRun = Callable[..., Path]
Rates = Mapping[str, float] | float


def item_id(benchmark: str, number: int) -> str:
    """Four questions to a figure in HallusionBench."""
    if benchmark != "HallusionBench":
        return f"{number:03d}"
    return f"VD_illusion/1/{number // 4}/{number % 4}"


def made_to_order(rate: Rates, luck: int, items: int = ITEMS) -> list[ItemResult]:
    """Marks whose items have one difficulty in every run; `luck` is a run's own noise."""
    found = []
    for benchmark in BENCHMARKS:
        wanted = rate if isinstance(rate, float) else rate.get(benchmark, 0.5)
        for number in range(items):
            hardness = Random(f"{benchmark}{number}").random()
            noise = Random(f"{benchmark}{number}/{luck}").gauss(0, 0.08)
            score = float(hardness + noise < wanted)
            if benchmark == "MMVet":
                score = round(10 * max(0.0, min(1.0, wanted + noise))) / 10
            found.append(
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
    return found


def write_marks(folder: Path, marks: list[ItemResult]) -> Path:
    """A closed folder of marks with its summary; left alone where it is there."""
    if manifest.read_manifest(folder) is not None:
        return folder
    parquet.write_all(folder, marks)
    by_name: dict[str, list[ItemResult]] = {}
    for mark in marks:
        by_name.setdefault(mark.benchmark, []).append(mark)
    found = {name: summary.summarize(name, own, resamples=100) for name, own in by_name.items()}
    found["mean"] = summary.summarize_mean(by_name, resamples=100)
    fields = ("score", "low", "high", "n", "failed", "undecided", "reason")
    content = {
        name: {field: getattr(each, field) for field in fields} for name, each in found.items()
    }
    manifest.write_json(folder / "summary.json", content)
    asked = {"system": "think", "rules": "2025-11", "judge": None}
    manifest.write_manifest(folder, settings=asked, inputs={}, seconds=61.0, counts={})
    return folder


def write_training(folder: Path, samples: int, steps: int) -> Path:
    """A closed training folder with its log."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "reward": 0.4, "seconds": 3.0 * step} for step in range(1, steps + 1)]
    (folder / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = {"steps": steps, "samples": samples, "generations": 64 * steps, "tokens": 1900 * steps}
    manifest.write_manifest(folder, settings=None, inputs={}, seconds=3.0 * steps, counts=counts)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The artifacts folder of the runs."""
    return tmp_path / "artifacts"


@pytest.fixture
def marks_of() -> Callable[..., list[ItemResult]]:
    """A function that makes marks."""
    return made_to_order


@pytest.fixture
def finished(make_run: Callable[..., RunInputs], root: Path) -> MakeRun:
    """A function that writes a finished run and gives its folder.

    `rate` is the share right; `control` that of its own random arm; `settings` dotted overrides.
    """
    toy = make_run(size=9, control=True)

    def make(
        name: str,
        rate: Rates,
        *,
        seed: int = 1,
        control: Rates | None = None,
        settings: Mapping[str, object] | None = None,
        marks: list[ItemResult] | None = None,
    ) -> Path:
        own = json.loads(json.dumps(toy.settings))
        own |= {"name": name, "recipe": name, "seed": seed, "output_dir": str(root)}
        for key, value in {**row_of(name).settings, **(settings or {})}.items():
            *parents, last = key.split(".")
            node = own
            for part in parents:
                node = node[part]
            node[last] = value
        print_ = manifest.fingerprint(own, str(rate), str(control))
        arms, found = {}, {"base": write_marks(root / "evaluate" / "base", made_to_order(0.4, 0))}
        rates = {"tuned": rate} | ({"control": control} if control is not None else {})
        for arm, wanted in rates.items():
            luck = 1000 * seed + sum(map(ord, name + arm))
            said = marks if marks is not None and arm == "tuned" else made_to_order(wanted, luck)
            trained = manifest.fingerprint(name, arm, str(seed), str(wanted), str(settings))
            place = root / "train" / trained
            if not place.exists():
                write_training(place, samples=96, steps=20)
            arms[arm] = ArmFolders(select=toy.arms[arm].select, train=place)
            found[arm] = write_marks(root / "evaluate" / trained, said)
        inputs = replace(
            toy,
            folder=root / "run" / f"{name}-{print_}",
            settings=own,
            recipe_difference=[f"name={name}"],
            arms=arms,
            marks=found,
            differences={},
        )
        manifest.write_json(inputs.folder / "report.json", gather(inputs, load_run(inputs)))
        return inputs.folder

    return make
