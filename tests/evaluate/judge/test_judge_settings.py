"""The judge's settings and environment variables are checked before a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.cli import overrides
from difftrain.config.judge import (
    JudgeKind,
    by_rules_alone,
    environment_problems,
    is_address,
    model_name,
)
from difftrain.config.run_config import ConfigError

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {"JUDGE_BASE_URL": "https://host/v1", "JUDGE_MODEL": "m", "JUDGE_API_KEY": "sk-1"}


def problems_of(*arguments: str) -> list[str]:
    """The problems that the settings check finds in these command-line arguments."""
    with pytest.raises(ConfigError) as caught:
        overrides.compose_config(list(arguments))
    return caught.value.problems


@pytest.fixture(autouse=True)
def unset_judge_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def test_an_endpoint_needs_an_address_and_a_model_in_the_environment() -> None:
    assert problems_of("evaluate.judge=endpoint") == [
        "evaluate.judge=endpoint: needs JUDGE_BASE_URL and JUDGE_MODEL in the environment"
    ]


def test_address_and_model_are_required_and_the_key_is_optional() -> None:
    assert list(environment_problems(ENVIRONMENT)) == []
    assert list(environment_problems({**ENVIRONMENT, "JUDGE_API_KEY": ""})) == []


@pytest.mark.parametrize(
    "url", ["host/v1", "ftp://host", "https://", "http://[::1", "http://host:port/v1", "sk-secret"]
)
def test_the_error_for_an_invalid_address_does_not_contain_it(url: str) -> None:
    assert not is_address(url)
    (problem,) = environment_problems({**ENVIRONMENT, "JUDGE_BASE_URL": url})
    assert problem == "needs JUDGE_BASE_URL to be an address such as https://host/v1"


@pytest.mark.parametrize("key", ["one\ntwo", "schlüssel"])
def test_the_error_for_a_key_that_no_header_can_hold_does_not_contain_it(key: str) -> None:
    (problem,) = environment_problems({**ENVIRONMENT, "JUDGE_API_KEY": key})
    assert problem == "needs JUDGE_API_KEY to be one line of plain characters"


def test_misspelled_settings_and_numbers_out_of_range_are_reported_together() -> None:
    problems = "\n".join(
        problems_of(
            "evaluate.judge=endpont",
            "evaluate.judge_client.concurency=3",
            "evaluate.judge_client.max_attempts=0",
            "evaluate.judge_client.max_calls=0",
            "evaluate.judge_client.timeout_s=-1",
            "evaluate.contamination=ignore",
        )
    )
    assert "evaluate.judge=endpont" in problems
    assert "did you mean evaluate.judge_client.max_concurrency?" in problems
    assert "evaluate.judge_client.max_attempts=0: must lie between 1 and 20" in problems
    assert "evaluate.judge_client.max_calls=0: must be at least 1, or null for no limit" in problems
    assert "evaluate.judge_client.timeout_s=-1" in problems
    assert "evaluate.contamination=ignore" in problems


def test_the_judge_of_the_built_in_shapes_benchmarks_judges_no_official_benchmark() -> None:
    """shapes/NAME is a built-in imitation of the official benchmark NAME."""
    shapes = JudgeKind.shapes  # a stub that needs no server
    assert not by_rules_alone(shapes, "shapes/MMStar")
    assert by_rules_alone(shapes, "MMStar")
    assert not by_rules_alone(JudgeKind.endpoint, "MMStar")
    # For MMStar alone, the results name the judge as they do without one.
    assert model_name(shapes, ["MMStar"]) == model_name(JudgeKind.none, ["shapes/MMStar"])
    assert "none (rules only) for the others" in model_name(shapes, ["MMStar", "shapes/MMVet"])


def test_missing_judge_variables_end_the_launcher_with_exit_code_2() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    process = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "evaluate.py"), "evaluate.judge=endpoint"],
        capture_output=True,
        text=True,
        env=environment | {"JUDGE_API_KEY": "sk-not-to-be-shown"},
    )
    assert process.returncode == 2
    assert "needs JUDGE_BASE_URL and JUDGE_MODEL in the environment" in process.stderr
    assert "sk-not" not in process.stderr + process.stdout
    assert "Traceback" not in process.stderr


def test_settings_with_a_judge_are_checked_without_importing_torch_or_openai() -> None:
    code = (
        "import sys; from difftrain.cli import checked_config;"
        "checked_config('train', sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'httpx', 'openai'} & sys.modules.keys()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "evaluate.judge=endpoint"],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.returncode == 0, process.stderr
