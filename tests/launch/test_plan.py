"""launch/plan.py: the resolved settings, and with check=model the eight ticks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.model.locate import SHIPPED

ROOT = Path(__file__).resolve().parents[2]


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "plan.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def test_without_a_check_the_settings_are_shown_and_nothing_is_loaded(tmp_path: Path) -> None:
    done = plan(f"artefacts={tmp_path}", "recipe=grpo_mid", "seed=7")
    assert done.returncode == 0, done.stderr
    assert "\nseed=7\n" in done.stdout
    assert "what makes this row this row: name=grpo_mid, select.keep=[medium]" in done.stdout
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("made: "))
    assert json.loads((folder / "settings.json").read_text())["seed"] == 7
    assert "✓" not in done.stdout


def test_a_misspelt_check_is_refused_with_the_right_one() -> None:
    done = plan("check=modl")
    assert done.returncode == 2
    assert "check=modl: no such check; did you mean model?" in done.stderr


@pytest.mark.slow
def test_the_shipped_model_passes_and_a_broken_one_is_told_the_cause(tmp_path: Path) -> None:
    done = plan("check=model", f"artefacts={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓") == 8
    broken = tmp_path / "broken"
    shutil.copytree(SHIPPED["tiny"], broken)
    template = broken / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|image_pad|>", ""))
    done = plan("check=model", f"artefacts={tmp_path}", "model=tiny", f"model.name={broken}")
    assert done.returncode == 1
    assert "chat template holds the picture: 0 places for 1 pictures" in done.stderr
    assert "Traceback" not in done.stderr
