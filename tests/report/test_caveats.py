"""The caveats of a report: judges, missing scores, and training samples in benchmarks.

A judge is a language model that scores answers. The shapes/ benchmarks are difftrain's small
imitations of published benchmarks, with generated images.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrain.pipeline import manifest
from difftrain.report import text as report_text
from difftrain.report.build import write_report
from difftrain.report.inputs import RunInputs

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py
NO_SCORE = {"score": None, "low": None, "high": None, "n": 0, "rules_only": True}
REASON = "MMVet needs a judge: none was called, or none of its replies was a score"


def change_summary(folder: Path, change: Callable[[dict], None]) -> None:
    """Rewrite a folder's summary.json."""
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    manifest.write_json(folder / "summary.json", summary)


def remove_judge(summary: dict) -> None:
    """Change a summary as if there was no judge: 30 of 120 items are undecided, all of MMVet."""
    for row in summary.values():
        row |= {"rules_only": True, "undecided": 30, "failed": 30, "reason": None}
    summary["shapes/MMVet"] = {**NO_SCORE, "failed": 120, "undecided": 120, "reason": REASON}
    reason = "no mean over 6 benchmarks, because there is no score of shapes/MMVet"
    num_undecided = 5 * 30 + 120  # 30 items of five benchmarks, 120 of MMVet
    summary["mean"] = {**NO_SCORE, "failed": num_undecided, "undecided": num_undecided}
    summary["mean"]["reason"] = reason


@pytest.fixture(scope="module")
def rules_only(make_run: MakeRun) -> tuple[RunInputs, dict]:
    """A run that was evaluated without a judge: its RunInputs and the content of report.json."""
    inputs = make_run(size=18)
    inputs.differences.clear()
    for folder in inputs.evaluations.values():
        change_summary(folder, remove_judge)
    return inputs, write_report(inputs)


def test_without_a_judge_every_score_is_shown_with_its_share_of_undecided_items(
    rules_only: tuple[RunInputs, dict],
) -> None:
    inputs, report = rules_only
    head, base, *_ = report_text.table("results", report)
    scores = dict(zip(head, base, strict=True))
    assert scores["shapes/MMStar"].endswith("], 25.0 % undecided")  # 30 of 120 items
    assert scores["shapes/MMVet"] == "none"
    for name in ("report.md", "report.html"):
        content = (inputs.folder / name).read_text()
        assert "25.0 % undecided" in content
        assert "Scores are by rules only (evaluate.judge=none)" in content
        assert f"shapes/MMVet has no score: {REASON} (base, tuned, control)." in content
        assert "none to none" not in content


def test_without_mean_scores_the_headline_says_that_the_effect_is_unknown(
    rules_only: tuple[RunInputs, dict],
) -> None:
    _, report = rules_only
    sentence = report_text.sentence("headline", report)
    assert sentence.startswith("It is unknown whether")
    assert sentence.endswith(
        "helped: no mean over 6 benchmarks, because there is no score of shapes/MMVet."
    )
    assert report_text.sentence("control_sentence", report).endswith("is not possible either.")


def test_failures_of_the_judge_and_undecided_items_are_counted_separately(
    make_run: MakeRun,
) -> None:
    inputs = make_run(size=16)

    def fail_some(summary: dict) -> None:
        # 2 of the 5 items without a score are undecided, so the judge failed for 3.
        summary["shapes/MMVet"] |= {"failed": 5, "undecided": 2}

    change_summary(inputs.evaluations["tuned"], fail_some)
    sentences = "\n".join(report_text.sentences("evaluation_caveats", write_report(inputs)))
    assert "because the judge failed: 3 of tuned. The same command queries only" in sentences
    assert "usable reply of the judge decided them: 2 of tuned." in sentences


def test_items_without_a_response_or_an_image_do_not_count_as_failures_of_the_judge(
    make_run: MakeRun,
) -> None:
    inputs = make_run(size=16)

    def fail_some(summary: dict) -> None:
        # 2 + 1 + 3 = 6: the judge failed for none.
        summary["shapes/MMVet"] |= {"failed": 6, "undecided": 2, "skipped": 1, "no_response": 3}

    change_summary(inputs.evaluations["tuned"], fail_some)
    sentences = "\n".join(report_text.sentences("evaluation_caveats", write_report(inputs)))
    assert "the judge failed" not in sentences
    assert "no response from the engine: 3 of tuned. No mean includes them; the same" in sentences
    assert "image is missing or cannot be read: 1 of tuned." in sentences


def test_the_evaluation_settings_include_the_numbers_of_judge_calls(make_run: MakeRun) -> None:
    inputs = make_run(size=17)
    for folder in inputs.evaluations.values():
        content = manifest.read_manifest(folder)
        assert content is not None
        counts = {"replies": 9, "from_cache": 2, "calls": 8, "unusable": 1, "failed_items": 0}
        content["counts"]["judge"] = {**counts, "faults": {"limited": 1}, "stopped": None}
        content["settings"]["judge"] = "some-judge"
        manifest.write_json(folder / "manifest.json", content)
    write_report(inputs)
    text = (inputs.folder / "report.md").read_text()
    assert "| judge | some-judge |" in text
    assert "| judge counts | calls 8, failed_items 0, faults limited 1, from_cache 2" in text


def contamination_caveats(**result: object) -> list[str]:
    """The sentences for a contamination.json with this content and, by default, without hits."""
    return report_text.sentences(
        "contamination_caveats", {"contamination": {"absent": [], "hits": [], **result}}
    )


def test_a_report_without_a_contamination_check_says_so(make_run: MakeRun) -> None:
    (sentence,) = report_text.sentences("contamination_caveats", {"contamination": None})
    assert "were not compared with the items of any benchmark" in sentence
    inputs = make_run(size=15)
    write_report(inputs)
    assert sentence in (inputs.folder / "report.md").read_text()


def test_a_benchmark_that_the_contamination_check_cannot_read_is_named() -> None:
    result = {"samples": 3, "checked": {"shapes/MMVet": 5}, "absent": [], "hits": []}
    result["not_checked"] = {"MMStar": "no readable parquet"}
    sentences = report_text.sentences("contamination_caveats", {"contamination": result})
    assert "Training samples were not compared with MMStar: no readable parquet." in sentences


def test_benchmarks_with_and_without_items_on_this_machine_are_named() -> None:
    absent, compared = contamination_caveats(
        samples=400, checked={"shapes/MMStar": 300, "shapes/MMMU": 300}, absent=["MMStar", "MMMU"]
    )
    assert absent.startswith("Training samples were not compared with MMStar, MMMU: no items")
    assert compared == (
        "400 samples were compared with 600 items of shapes/MMStar, shapes/MMMU; none is in both."
    )


def test_contaminated_samples_are_named_and_those_that_were_trained_on_are_counted() -> None:
    # Seven samples are in a benchmark, the first two of them were trained on. Five are listed.
    hit = {"kind": "same image", "item": "shapes/MMStar/0", "items": 1, "same_question": True}
    hits = [hit | {"sample_id": f"s{i}", "trained": i < 2} for i in range(7)]
    (sentence,) = contamination_caveats(samples=400, checked={"shapes/MMStar": 300}, hits=hits)
    assert "7 are in both, 2 of which were trained on: s0 (same image: shapes/MMStar/0)" in sentence
    assert sentence.endswith("and 2 more in report.json.")
