"""`sweep table=rap` runs the rows of RAP's Table 1 and ablation on the shapes world to a table.

RAP selects by three measures: CDE (does the answer need the image?), ACE (attention bias) and DRM
(difficulty).
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.report.compare.presets import RAP_TITLES

ROOT = Path(__file__).resolve().parents[2]
POOL = 48  # samples
SETTINGS = ("debug=smoke", f"data.num_samples={POOL}", "evaluate.limit=6", "grpo.max_steps=1",
            "probe.retest_samples=0")  # fmt: skip
ABLATION = ("rap_cde", "rap_ace", "rap_cde_ace")
pytestmark = pytest.mark.slow


def sweep(output_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run the table with few samples, steps and benchmark items."""
    arguments = ("table=rap", *SETTINGS, f"output_dir={output_dir}")
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "sweep.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    done = sweep(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def reports(output_dir: Path) -> dict[str, dict]:
    """report.json of each run by its recipe."""
    folders = {path.name.rpartition("-")[0]: path for path in (output_dir / "run").iterdir()}
    assert folders.keys() == RAP_TITLES.keys()
    return {name: json.loads((path / "report.json").read_text()) for name, path in folders.items()}


def test_all_rows_share_one_probe_one_pool_and_one_base_evaluation(
    output_dir: Path, reports: dict[str, dict]
) -> None:
    for stage in ("data", "probe", "attention", "score", "evaluate base"):
        assert len({report["stages"][stage]["folder"] for report in reports.values()}) == 1
    assert len(list((output_dir / "score").iterdir())) == 1


def test_controls_have_as_many_samples_as_the_rows_they_control(reports: dict[str, dict]) -> None:
    picks = {name: report["counts"]["picks"]["grpo"] for name, report in reports.items()}
    assert picks["rap_random"] == picks["rap"] < picks["grpo_full"] == POOL
    for name in ABLATION:
        assert reports[name]["counts"]["control_picks"]["grpo"] == picks[name]
    assert picks["rap_cde_ace"] <= min(picks["rap_cde"], picks["rap_ace"])


def test_the_table_has_shares_of_the_pool_and_a_control_for_each_selection(
    output_dir: Path, reports: dict[str, dict]
) -> None:
    (folder,) = (output_dir / "compare").iterdir()
    content = (folder / "compare.md").read_text()
    section = content.partition("### As RAP's Table 1 and its ablation")[2].partition("\n\nCDE")[0]
    rows = {line.split("|")[1].strip(): line.split("|") for line in section.splitlines() if line}
    for name, title in RAP_TITLES.items():
        count = reports[name]["counts"]["picks"]["grpo"]
        cells = [cell.strip() for cell in rows[title]]
        assert cells[2:4] == [f"{count}", f"{100 * count / POOL:.1f} %"]
        selects = name not in ("grpo_full", "rap_random")
        assert ("none" not in cells[4:7]) == selects  # probe, attention and scoring
    lines = csv.DictReader((folder / "compare.csv").open())
    controls = {row["row"]: row["control"] for row in lines if row["benchmark"] == "mean"}
    assert controls["rap"] == "random set of RAP's size"
    assert {controls[name] for name in ABLATION} == {"its own random control"}
    assert "The figures of RAP's Table 1 are left out" in content


def test_the_same_command_repeats_no_run(output_dir: Path, reports: dict[str, dict]) -> None:
    done = sweep(output_dir)
    assert done.returncode == 0
    assert "sweep rap: 6 runs, 6 finished earlier" in done.stdout
