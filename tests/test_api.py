"""The functions of `import difftrain`, on a few shapes samples and the tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import difftrain
from difftrain.config.run_config import ConfigError
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.records import Measure

SMALL = ("difficulty=pism", "probe.mask_percents=[0, 50]", "probe.draws=2")
"""The difficulty measure PISM with 2 responses each for the whole and for the half-masked image."""


def test_samples_are_loaded_probed_scored_and_selected(tmp_path: Path) -> None:
    settings = (*SMALL, "difficulty.extra_measures=[]", f"output_dir={tmp_path}")
    samples = difftrain.load_dataset("shapes", "data.limit=4")
    model = difftrain.load_model("tiny")
    scores = difftrain.score_samples(samples, model, *settings)
    assert [score.sample_id for score in scores] == [sample.sample_id for sample in samples]
    assert {score.measure for score in scores} == {Measure.pism}
    rollouts = difftrain.probe_samples(samples, model, *settings)
    assert {rollout.sample_id for rollout in rollouts} == {sample.sample_id for sample in samples}
    strata = ", ".join(sorted({score.stratum for score in scores if score.stratum}))
    selected = difftrain.select_samples(scores, *settings, f"select.strata=[{strata}]")
    assert [row.sample_id for row in selected] == [score.sample_id for score in scores]
    assert len(list((tmp_path / "probe").iterdir())) == 1  # both calls used the same responses


def test_a_jsonl_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    Image.new("RGB", (112, 112), "red").save(tmp_path / "red.png")
    row = {"prompt": "<image>What is 2 + 3?", "ground_truth": "5", "image_paths": ["red.png"]}
    path.write_text(json.dumps(row) + "\n")
    (sample,) = difftrain.load_dataset(str(path))
    assert sample.answer == "5"


def test_bad_settings_are_refused_with_their_rule() -> None:
    with pytest.raises(ConfigError, match=r"data\.limit=0: must be at least 1"):
        difftrain.load_dataset("shapes", "data.limit=0")


def test_a_report_is_read_and_a_missing_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"name": "grpo_hard"}')
    assert difftrain.read_report(tmp_path) == {"name": "grpo_hard"}
    with pytest.raises(MissingArtifact, match=r"no report\.json at"):
        difftrain.read_report(tmp_path / "none")


def test_importing_the_package_imports_no_large_library() -> None:
    imported = "[name for name in ('torch', 'trl', 'pyarrow') if name in sys.modules]"
    code = f"import sys, difftrain; print({imported})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
