"""`difftrain grade` explains how one response is graded."""

import subprocess
import sys

import pytest

from difftrain.cli import grade_case
from difftrain.config.difficulty import GradeConfig
from difftrain.config.run_config import ConfigError


def explain(*arguments: str) -> str:
    fields, _ = grade_case.split_arguments([*arguments])
    return grade_case.explain(fields, GradeConfig())


def test_it_prints_verdict_compared_values_and_rule() -> None:
    text = explain("gold=2.5", "response=<answer>5/2 cm</answer>")
    assert text.splitlines() == [
        "verdict: correct (credit 1)",
        "kind:    number",
        "answer:  5/2 centimeter",
        "gold:    5/2",
        "rule:    number with unit",
    ]


def test_it_notes_that_training_reads_no_answer_without_tags() -> None:
    text = explain("gold=B", "options=red|blue", "response=blue")
    assert "verdict: correct" in text
    assert "no closed answer tags" in text


def test_any_of_several_gold_answers_counts() -> None:
    golds = ("gold=three", "gold=3", "kind=text")
    assert "verdict: correct" in explain(*golds, "response=3")
    assert "verdict: incorrect" in explain(*golds, "response=4")


def test_gold_answers_are_read_as_in_training() -> None:
    assert "gold:    5" in explain(r"gold=\boxed{5}", "response=5")
    mixed = explain("gold=3", "gold=three", "response=three")
    assert "verdict: correct" in mixed
    assert "kind:    text" in mixed
    # An answer that its grader cannot decide is dropped if another is left.
    assert "verdict: correct" in explain("gold=3", "gold=a few", "kind=count", "response=3")


def test_an_empty_option_is_refused_since_the_letters_would_shift() -> None:
    with pytest.raises(ConfigError, match=r"options=cat\|\|dog: an option is empty"):
        explain("gold=B", "options=cat||dog", "response=B")


def test_missing_and_unusable_fields_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"gold=.*\n.*response="):
        explain()
    with pytest.raises(ConfigError, match="did you mean number"):
        explain("gold=7", "response=7", "kind=numbr")
    with pytest.raises(ConfigError, match="not one number"):
        explain("gold=many", "response=7", "kind=count")


def test_the_command_takes_grading_settings() -> None:
    command = [sys.executable, "-m", "difftrain.cli", "grade", "gold=120 min", "response=2 hours"]
    strict = subprocess.run(command, capture_output=True, text=True, check=True)
    command += ["grade.convert_units=true"]
    converting = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "verdict: incorrect" in strict.stdout
    assert "verdict: correct" in converting.stdout
