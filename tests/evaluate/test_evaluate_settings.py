"""Settings of evaluations: sources of items, pixel limits, arguments of launch/evaluate.py.

shapes/NAME is a built-in imitation of the benchmark NAME: its questions and images are generated.
Without the prefix, NAME is the official data set. The reference harness is VLMEvalKit.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrain.cli import expand_evaluate, overrides
from difftrain.config.evaluate import EvaluateConfig, ItemSource
from difftrain.config.run_config import ConfigError, resolve
from difftrain.pipeline import parquet
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Arm, ItemResult, ItemStatus

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "difftrain" / "shapes" / "tiny"


def problems_of(*arguments: str) -> list[str]:
    """The problems that the settings check finds in these command-line arguments."""
    with pytest.raises(ConfigError) as caught:
        overrides.compose_config(list(arguments))
    return caught.value.problems


def expand(*arguments: str) -> list[str]:
    """The short arguments of launch/evaluate.py as settings."""
    settings, other_function = expand_evaluate(list(arguments))
    assert other_function is None  # no argument replaces the function that the launcher runs
    return settings


def run_evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "evaluate.py"), *arguments]
    variables = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def test_official_names_need_no_prefix_and_come_from_the_hub() -> None:
    config = resolve(
        overrides.compose_config(["evaluate.benchmarks=[MMStar,shapes/MMVet]"])
    ).evaluate
    assert config.official == ["MMStar"]
    assert config.source_of("MMStar") == (ItemSource.hub, "Lin-Chen/MMStar")


@pytest.mark.parametrize("word", ["rap", "[rap]"])
def test_a_set_of_benchmarks_is_replaced_by_its_members(word: str) -> None:
    config = resolve(overrides.compose_config([f"evaluate.benchmarks={word}"])).evaluate
    assert config.benchmarks == [
        *("MathVista", "MMStar", "MathVerse", "WeMath", "MMVet", "LogicVista"),
    ]
    # The set and the list of its members have the same results folder.
    spelled = resolve(
        overrides.compose_config([f"evaluate.benchmarks=[{','.join(config.benchmarks)}]"])
    )
    config_of_set = resolve(overrides.compose_config(["evaluate.benchmarks=rap"]))
    folders = [RunPaths(config).evaluation(Arm.base) for config in (spelled, config_of_set)]
    assert folders[0] == folders[1]


def test_the_built_in_benchmarks_have_sets_too_and_the_default_is_the_first_paper_s() -> None:
    assert EvaluateConfig().benchmarks == EvaluateConfig(benchmarks=["shapes/paper1"]).benchmarks
    names = EvaluateConfig(benchmarks=["shapes/all"]).benchmarks
    assert len(names) == len({name.removeprefix("shapes/") for name in names}) == 9
    mixed = EvaluateConfig(benchmarks=["shapes/rap", "OCRBench"]).benchmarks
    assert mixed[-2:] == ["shapes/LogicVista", "OCRBench"]


def test_an_unknown_set_gets_a_did_you_mean_and_a_repeated_benchmark_is_an_error() -> None:
    assert problems_of("evaluate.benchmarks=papr1")[0].endswith("did you mean paper1?")
    assert "names a benchmark twice" in problems_of("evaluate.benchmarks=[rap,MMStar]")[0]


def test_mathverse_s_tsv_file_may_have_its_published_name(tmp_path: Path) -> None:
    config = EvaluateConfig(source=ItemSource.tsv, path=str(tmp_path), benchmarks=["MathVerse"])
    (tmp_path / "MathVerse_MINIV.tsv").write_text("")
    assert config.source_of("MathVerse")[1].endswith("MathVerse_MINIV.tsv")
    (tmp_path / "MathVerse_MINI.tsv").write_text("")
    assert config.source_of("MathVerse")[1].endswith("MathVerse_MINI.tsv")


def test_every_missing_file_or_folder_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "MMVet.tsv").write_text("")
    three_benchmarks = "evaluate.benchmarks=[MMVet,MMStar,MMMU]"
    assert (
        "needs a folder: evaluate.path=DIR"
        in problems_of(three_benchmarks, "evaluate.source=tsv")[0]
    )
    assert (
        "no such folder"
        in problems_of(three_benchmarks, "evaluate.source=tsv", "evaluate.path=nowhere")[0]
    )
    problems = problems_of(three_benchmarks, "evaluate.source=tsv", f"evaluate.path={tmp_path}")
    assert [problem.split("there is no ")[1] for problem in problems] == [
        f"MMStar at {tmp_path}/MMStar.tsv",
        f"MMMU at {tmp_path}/MMMU_DEV_VAL.tsv",
    ]
    override = f"evaluate.paths.MMStar={tmp_path}/x.tsv"
    (problem,) = problems_of("evaluate.benchmarks=[MMStar]", override)
    assert problem == f"evaluate.paths.MMStar={tmp_path}/x.tsv: there is no MMStar at " + (
        f"{tmp_path}/x.tsv"
    )


def test_misspelled_paths_and_harness_overrides_get_a_did_you_mean() -> None:
    """harness_overrides are deviations from the harness; `zero` is one for MathVista."""
    assert "did you mean evaluate.paths.MMStar?" in problems_of("evaluate.paths.MMstar=x")[0]
    assert (
        "did you mean evaluate.harness_overrides.zero?"
        in problems_of("evaluate.harness_overrides.zeros=true")[0]
    )


def test_a_folder_may_be_named_after_the_benchmark_or_its_hub_id(tmp_path: Path) -> None:
    config = EvaluateConfig(source=ItemSource.folder, path=str(tmp_path), benchmarks=["MathVista"])
    assert config.source_of("MathVista")[1] == str(tmp_path / "MathVista")
    (tmp_path / "AI4Math" / "MathVista").mkdir(parents=True)
    assert config.source_of("MathVista")[1] == str(tmp_path / "AI4Math" / "MathVista")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("x/MMStar.tsv", ItemSource.tsv),
        ("./x", ItemSource.folder),
        ("~/x", ItemSource.folder),
        ("org/MMStar@main", ItemSource.hub),
    ],
)
def test_the_path_of_a_single_benchmark_tells_its_source(path: str, source: ItemSource) -> None:
    config = EvaluateConfig()
    config.paths.MMStar = path
    assert config.source_of("MMStar")[0] is source


def test_pixel_limits_are_those_of_the_reference_harness_unless_set() -> None:
    config = EvaluateConfig()
    # The second argument has the limits of the training data, which only shapes/ benchmarks use.
    # The harness has its limits in tokens of 28 x 28 pixels: 1280 (OCRBench 100) to 16384.
    assert config.pixels("MMStar", (1, 2)) == (1_003_520, 12_845_056)
    assert config.pixels("OCRBench", (1, 2)) == (78_400, 12_845_056)
    assert config.pixels("shapes/OCRBench", (3136, 12544)) == (3136, 12544)
    config.min_pixels, config.max_pixels = 784, 1568
    assert config.pixels("OCRBench", (1, 2)) == config.pixels("shapes/MMMU", (1, 2)) == (784, 1568)
    problem = problems_of("evaluate.benchmarks=[MMMU]", "evaluate.max_pixels=1000")[0]
    assert "MMMU: min_pixels=1003520 is above max_pixels=1000" in problem


@pytest.mark.parametrize(
    ("arguments", "key", "low", "high"),
    [
        # Unset limits are those of the built-in training data, 3136 and 12544.
        (["evaluate.min_pixels=1000000"], "min_pixels", 1000000, 12544),
        (["evaluate.max_pixels=1000"], "max_pixels", 3136, 1000),
        (["evaluate.min_pixels=2000", "evaluate.max_pixels=1000"], "min_pixels", 2000, 1000),
    ],
)
def test_a_minimum_of_pixels_above_the_maximum_is_an_error_for_shapes_benchmarks(
    arguments: list[str], key: str, low: int, high: int
) -> None:
    (problem,) = problems_of(*arguments)
    assert problem.startswith(f"evaluate.{key}=")
    assert problem.endswith(
        f"shapes/ benchmarks: min_pixels={low} is above max_pixels={high} "
        "(null takes data.min_pixels=3136 or data.max_pixels=12544)"
    )
    # An equal minimum and maximum are no error.
    resolve(overrides.compose_config([f"evaluate.min_pixels={low}", f"evaluate.max_pixels={low}"]))


def test_the_results_folder_depends_on_a_files_content_and_not_on_its_path(
    tmp_path: Path,
) -> None:
    def folder(path: Path) -> Path:
        arguments = ["evaluate.benchmarks=[MMStar]", f"evaluate.paths.MMStar={path}"]
        return RunPaths(resolve(overrides.compose_config(arguments))).evaluation(Arm.base)

    one, two = tmp_path / "a.tsv", tmp_path / "b.tsv"
    one.write_text("x")
    two.write_text("x")
    before = folder(one)
    assert folder(two) == before
    one.write_text("y")
    assert folder(one) != before


def test_short_arguments_are_expanded() -> None:
    assert expand("model=org/name", "benchmarks=[MMStar]", "seed=2") == [
        "model=any",
        "model.name=org/name",
        "evaluate.benchmarks=[MMStar]",
        "seed=2",
    ]
    assert expand("model=tiny", "evaluate.limit=3") == ["model=tiny", "evaluate.limit=3"]
    arguments = expand(f"model={TINY}", "benchmarks=[MMStar]", "limit=3")
    config = resolve(overrides.compose_config(arguments))
    assert config.model.name == str(TINY)
    # 2048 is the default. The 72 of conf/model/tiny.yaml does not apply to a model given by path.
    assert (config.evaluate.limit, config.evaluate.max_new_tokens) == (3, 2048)


def test_a_misspelled_model_gets_a_did_you_mean() -> None:
    assert "did you mean tiny?" in problems_of(*expand("model=tny"))[0]


def test_all_items_are_evaluated_by_default_and_a_hundred_with_the_tiny_model() -> None:
    assert EvaluateConfig().limit is None
    # Without arguments the model is tiny.
    assert resolve(overrides.compose_config([])).evaluate.limit == 100


@pytest.fixture
def four_items_each(tmp_path: Path, hub_rows: Callable, write_folder: Callable) -> list[str]:
    """Arguments to evaluate four items of MMMU and of MMVet; two images of MMVet are unusable."""
    mmvet_rows = [dict(row) for row in hub_rows("MMVet")[:4]]
    mmvet_rows[2]["image"] = None
    mmvet_rows[3]["image"] = {"bytes": b"no image", "path": "x.png"}
    write_folder(tmp_path, "MMVet", mmvet_rows)
    # 0 and 17 are open questions, 1 and 25 have options. 0 and 25 have two images, 1 and 17 one.
    write_folder(tmp_path, "MMMU", [hub_rows("MMMU")[i] for i in (0, 1, 17, 25)])
    return [
        f"model={TINY}",
        "model.dtype=float32",
        "benchmarks=[MMMU,MMVet]",
        "evaluate.source=folder",
        f"evaluate.path={tmp_path}",
        "evaluate.min_pixels=3136",
        "evaluate.max_pixels=12544",
        "evaluate.max_new_tokens=6",
        f"output_dir={tmp_path}/out",
    ]


@pytest.mark.slow
def test_the_launcher_evaluates_a_checkpoint_and_counts_missing_images(
    four_items_each: list[str],
) -> None:
    first_process = run_evaluate(*four_items_each)
    assert first_process.returncode == 2
    assert "MMMU: 4 items in" in first_process.stderr
    assert "but the benchmark has 900" in first_process.stderr
    process = run_evaluate(*four_items_each, "evaluate.allow_count_mismatch=true")
    assert process.returncode == 0, process.stderr[-3000:]
    folder = Path(process.stdout.strip().splitlines()[-1].removeprefix("output: "))
    results = parquet.read_rows(folder, ItemResult)
    assert len(results) == 4 + 4  # of MMMU and of MMVet
    unscored = [result for result in results if result.score is None]
    assert [result.item_id for result in unscored] == ["v1_2", "v1_3"]
    assert all(result.status is ItemStatus.skipped and result.error for result in unscored)
    breakdowns: dict[str, Any] = json.loads((folder / "breakdown.json").read_text())
    assert breakdowns["MMVet"]["outcomes"]["skipped"] == 2
    assert breakdowns["MMMU"]["outcomes"]["skipped"] == 0
    # Two items of MMVet have a score; the official data set has 218 items.
    assert "| 2 of 218 |" in (folder / "scores.md").read_text()


@pytest.mark.slow
def test_without_network_the_message_says_how_to_use_a_local_folder() -> None:
    process = run_evaluate("benchmarks=[MMStar]")
    assert process.returncode == 2
    assert "Lin-Chen/MMStar" in process.stderr
    assert "Traceback" not in process.stderr
    assert "evaluate.source=folder evaluate.path=DIR" in process.stderr


def test_a_missing_path_ends_in_exit_code_2_within_three_seconds() -> None:
    started = time.perf_counter()
    process = run_evaluate("benchmarks=[MMStar]", "evaluate.source=tsv", "evaluate.path=/nowhere")
    assert process.returncode == 2
    assert "there is no such folder" in process.stderr
    load = os.getloadavg()[0]  # a busy machine gets more time
    assert time.perf_counter() - started < 3 * max(1.0, load)
