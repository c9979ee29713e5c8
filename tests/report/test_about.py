"""What the report says of judges, of scores that are none, and of contamination."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrain.pipeline import manifest
from difftrain.report import (about)
from difftrain.report import text
from difftrain.report.inputs import RunInputs
from difftrain.report.write import write

Make = Callable[..., RunInputs]
NONE = {"score": None, "low": None, "high": None, "n": 0, "rules_only": True}
WHY = "MMVet needs a judge: none was asked, or none of its replies was a score"


def changed(folder: Path, change: Callable[[dict], None]) -> None:
    """Rewrite a folder's summary.json."""
    found = json.loads((folder / "summary.json").read_text())
    change(found)
    manifest.write_json(folder / "summary.json", found)


def by_rules(found: dict) -> None:
    for mark in found.values():
        mark |= {"rules_only": True, "undecided": 30, "failed": 30, "reason": None}
    found["shapes/MMVet"] = {**NONE, "failed": 120, "undecided": 120, "reason": WHY}
    why = "no mean over 6, without a score of shapes/MMVet"
    found["mean"] = {**NONE, "failed": 270, "undecided": 270, "reason": why}


@pytest.fixture(scope="module")
def rules_only(make_run: Make) -> tuple[RunInputs, dict]:
    """A report of a run that no judge marked."""
    inputs = make_run(size=18)
    inputs.differences.clear()
    for folder in inputs.marks.values():
        changed(folder, by_rules)
    return inputs, write(inputs)


def test_without_a_judge_the_share_of_undecided_items_stands_beside_each_score(
    rules_only: tuple[RunInputs, dict],
) -> None:
    inputs, report = rules_only
    assert text.interval(report["base"]["shapes/MMStar"]).endswith("], 25.0 % undecided")
    assert text.interval(report["base"]["shapes/MMVet"]) == "none"
    for name in ("report.md", "report.html"):
        text = (inputs.folder / name).read_text()
        assert "25.0 % undecided" in text
        assert "Scores are by rules alone (evaluate.judge=none)" in text
        assert f"shapes/MMVet has no score: {WHY} (base, tuned, control)." in text
        assert "none to none" not in text


def test_without_means_the_headline_claims_nothing(rules_only: tuple[RunInputs, dict]) -> None:
    _, report = rules_only
    told = text.headline(report)
    assert told.endswith("helped cannot be said: no mean over 6, without a score of shapes/MMVet.")
    assert text.against_control(report).startswith("Nor can it be compared")


def test_items_whose_judge_failed_are_told_apart_from_undecided_ones(make_run: Make) -> None:
    inputs = make_run(size=16)

    def failing(found: dict) -> None:
        found["shapes/MMVet"] |= {"failed": 5, "undecided": 2}

    changed(inputs.marks["tuned"], failing)
    told = "\n".join(about.judging(write(inputs)))
    assert "because the judge failed: 3 of tuned. The same command asks it again" in told
    assert "usable reply of the judge decided them: 2 of tuned." in told


def test_items_without_an_answer_or_a_picture_are_no_failure_of_the_judge(make_run: Make) -> None:
    inputs = make_run(size=16)

    def failing(found: dict) -> None:
        found["shapes/MMVet"] |= {"failed": 6, "undecided": 2, "skipped": 1, "no_response": 3}

    changed(inputs.marks["tuned"], failing)
    told = "\n".join(about.judging(write(inputs)))
    assert "the judge failed" not in told
    assert "got no response from the engine: 3 of tuned. They are in no mean; the same" in told
    assert "are skipped, because of their image: 1 of tuned." in told


def test_the_judges_counts_stand_beside_the_settings(make_run: Make) -> None:
    inputs = make_run(size=17)
    for folder in inputs.marks.values():
        made = manifest.read_manifest(folder)
        assert made is not None
        counts = {"replies": 9, "from_cache": 2, "calls": 8, "unusable": 1, "failed_items": 0}
        made["counts"]["judge"] = {**counts, "faults": {"limited": 1}, "stopped": None}
        made["settings"]["judge"] = "some-judge"
        manifest.write_json(folder / "manifest.json", made)
    write(inputs)
    text = (inputs.folder / "report.md").read_text()
    assert "| judge | some-judge |" in text
    assert "| judge counts | calls 8, failed_items 0, faults limited 1, from_cache 2" in text


def contaminated(**found: object) -> list[str]:
    return about.contamination({"contamination": {"absent": [], "hits": [], **found}})


def test_a_run_that_nobody_checked_says_so(make_run: Make) -> None:
    (told,) = about.contamination({"contamination": None})
    assert "nothing was checked" in told
    inputs = make_run(size=15)
    write(inputs)
    assert told in (inputs.folder / "report.md").read_text()


def test_a_benchmark_on_disk_that_cannot_be_read_is_told_as_not_checked() -> None:
    found = {"samples": 3, "checked": {"shapes/MMVet": 5}, "absent": [], "hits": []}
    found["not_checked"] = {"MMStar": "no readable parquet"}
    told = about.contamination({"contamination": found})
    assert "not checked: MMStar: no readable parquet." in told


def test_what_was_compared_is_told_and_what_is_not_at_hand_too() -> None:
    absent, over = contaminated(
        samples=400, checked={"shapes/MMStar": 300, "shapes/MMMU": 300}, absent=["MMStar", "MMMU"]
    )
    assert absent.startswith("Of the official benchmarks MMStar, MMMU no items are at hand here")
    assert absent.endswith("nothing was checked.")
    assert over == (
        "400 samples were compared with 600 items of shapes/MMStar, shapes/MMMU; none is in both."
    )


def test_hits_are_named_and_those_that_were_trained_on_are_counted() -> None:
    hit = {"kind": "same picture", "item": "shapes/MMStar/0", "items": 1, "same_question": True}
    hits = [hit | {"sample_id": f"s{n}", "trained": n < 2} for n in range(7)]
    (told,) = contaminated(samples=400, checked={"shapes/MMStar": 300}, hits=hits)
    assert "7 are in both, 2 of which were trained on: s0 (same picture: shapes/MMStar/0)" in told
    assert told.endswith("and 2 more in report.json.")
