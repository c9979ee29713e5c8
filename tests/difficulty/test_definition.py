"""A measure is one module, one line that registers it, and one file under conf/difficulty."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.difficulty.definition import definition
from difftrain.records import Measure

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
from dataclasses import dataclass

from difftrain.config.setting import setting
from difftrain.difficulty.definition import Definition, ProbeDraws
from difftrain.records import Stratum


@dataclass(kw_only=True, slots=True)
class LengthConfig:
    easy_max: int = setting(5, at_least=1)


def score(evidence, config, probe):
    length = evidence.first_num_tokens
    return float(length), Stratum.easy if length <= config.length.easy_max else Stratum.hard


MEASURE = Definition(
    meaning="how long the first response is",
    score=score,
    has_strata=True,
    draws=lambda config, probe: ProbeDraws(full_image=1),
    settings=LengthConfig,
)
"""
USE = """
from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import ConfigError, resolve
from difftrain.difficulty.evidence import Evidence
from difftrain.difficulty.score import score_sample
from difftrain.probe.schedule import requirements
from difftrain.records import Measure

config = resolve(compose_config(["difficulty=length", "difficulty.length.easy_max=7"]))
evidence = Evidence(1, 1, 1, 1)
evidence.first_num_tokens = 7
score = score_sample("a", Measure.length, evidence, config.probe, config.difficulty)
needs = requirements(config.difficulty, config.probe)
print(score.measure.value, score.value, score.stratum.value, needs.full_image)
try:
    compose_config(["difficulty.length.easy_max=0"])
except ConfigError as error:
    print(error.problems[0])
"""


@pytest.mark.parametrize("measure", Measure)
def test_every_registered_measure_has_a_module_that_defines_it(measure: Measure) -> None:
    assert definition(measure).meaning


def test_a_measure_is_added_by_one_module_one_line_and_one_yaml_file(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.safetensors", "__pycache__")
    package = tmp_path / "difftrain"
    shutil.copytree(ROOT / "difftrain", package, ignore=ignored)
    (package / "difficulty" / "length.py").write_text(f'"""Length."""\n{MODULE}')
    (package / "conf" / "difficulty" / "length.yaml").write_text("measure: length\n")
    records = (package / "records.py").read_text()
    line = '    image_gain = "image_gain"'
    assert records.count(line) == 1
    (package / "records.py").write_text(records.replace(line, f'    length = "length"\n{line}'))
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "length 7.0 easy 1"
    assert second.startswith("difficulty.length.easy_max=0: must be at least 1")
