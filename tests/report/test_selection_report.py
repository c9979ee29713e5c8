"""What the report says about the selection: RAP's steps, chance correction, and the retest."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.pipeline import manifest, parquet
from difftrain.records import Measure, Score, Stratum
from difftrain.report import text as report_text
from difftrain.report.build import write_report
from difftrain.report.inputs import RunInputs
from difftrain.select import rap

MakeRun = Callable[..., RunInputs]
AGREEMENT = {"n": 24, "same": 20, "share": 20 / 24, "low": 0.64, "high": 0.93, "by_chance": 0.4}
RETEST = {
    "measures": {"pism": AGREEMENT, "ace": AGREEMENT | {"by_chance": 0.8}},
    "chosen": {"pool": 24, "first": 6, "second": 5, "common": 4, "common_by_chance": 1.25},
}

NOT_RETESTED = report_text.sentence("retest", {"retest": None})


def run_rap(inputs: RunInputs) -> rap.RapResult:
    """RAP on the toy run's samples, with values such that every kind of decision occurs."""
    ids = sorted({row.sample_id for row in parquet.read_rows(inputs.score, Score)})
    return rap.run_rap(
        sample_id_N=ids,
        discrepancy_N=[0.8 if n % 3 else 0.2 for n in range(len(ids))],
        bias_N=[None if n == 1 else -1.0 if n % 5 == 0 else -5.0 for n in range(len(ids))],
        difficulty_N=[n % 4 / 5 for n in range(len(ids))],
        draws=5,
    )


@pytest.fixture(scope="module")
def rap_run(make_run: MakeRun) -> tuple[RunInputs, dict]:
    """A toy run whose samples RAP selected, with chance correction and a retest."""
    inputs = make_run(control=False)
    rap_result, folder = run_rap(inputs), inputs.arms["tuned"].select
    for part in parquet.parts(folder):
        part.unlink()
    parquet.write_all(folder, rap_result.selections)
    parquet.write_all(folder / rap.DECISIONS_FOLDER, rap_result.decisions)
    manifest.write_manifest(
        folder, settings=None, inputs={}, seconds=0.1,
        counts={"picks": len(rap_result.selections), "funnel": rap_result.funnel},
    )  # fmt: skip
    uncorrected = [
        replace(row, stratum=Stratum.easy) if n == 0 else row
        for n, row in enumerate(
            row
            for row in parquet.read_rows(inputs.score, Score)
            if row.measure is Measure.pism and row.stratum is not Stratum.easy
        )
    ]
    ids = {row.sample_id for row in uncorrected}
    uncorrected += [
        row
        for row in parquet.read_rows(inputs.score, Score)
        if row.measure is Measure.pism and row.sample_id not in ids
    ]
    parquet.write_all(inputs.score / "pism_uncorrected", uncorrected)
    retest = inputs.score.parent / "reliability"
    manifest.write_json(retest / "reliability.json", RETEST)
    manifest.write_manifest(
        retest, settings=None, inputs={}, seconds=2.0, counts={"generations": 99, "tokens": 400}
    )
    settings = deepcopy(inputs.settings)
    settings["select"] |= {"strata": [], "rap": ["cde", "ace", "drm"]}
    inputs = replace(inputs, settings=settings, retest=retest)
    return inputs, write_report(inputs)


def test_the_funnel_is_in_the_json_and_its_counts_add_up(rap_run: tuple[RunInputs, dict]) -> None:
    inputs, _ = rap_run
    actual = json.loads((inputs.folder / "report.json").read_text())["funnel"]
    assert actual["pool"] == 24
    left = actual["after_ace"] - actual["removed_easy"]
    assert left + actual["brought_in"] == actual["chosen"] > actual["brought_in"] > 0
    assert actual["without_bias"] == 1


def test_the_page_shows_the_funnel_as_a_figure_with_counts(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    html = (inputs.folder / "report.html").read_text()
    assert "Selected by CDE, ACE and DRM" in html
    (address,) = re.findall(r'src="([^"]*)" alt="How many samples each step', html)
    assert address.startswith("data:image/svg+xml;base64,")
    assert b"<svg" in b64decode(address.partition(",")[2])
    rows = report_text.table("funnel", report["funnel"])[1:]
    assert [row[0] for row in rows] == [
        "pool", "CDE: the image helps", "ACE: not biased", "DRM: not easy", "DRM: replaced",
        "trained on",
    ]  # fmt: skip
    assert rows[0][1] == "24"
    assert rows[-1][1] == str(sum(report["counts"]["picks"].values()))
    assert "1 responses are too short for an ACE value" in html


def test_the_page_shows_why_a_sample_was_left_out(rap_run: tuple[RunInputs, dict]) -> None:
    html = (rap_run[0].folder / "report.html").read_text()
    assert "<dt>left out</dt><dd>dropped by CDE: D = 0.20" in html
    assert "<dt>trained on</dt><dd>kept: D = 0.80" in html


def test_a_run_with_ace_alone_shows_no_other_steps(rap_run: tuple[RunInputs, dict]) -> None:
    actual = rap_run[1]["funnel"] | {"steps": ["ace"]}
    assert [row[0] for row in report_text.table("funnel", actual)[1:]] == [
        "pool",
        "ACE: not biased",
        "trained on",
    ]


def test_too_few_candidates_and_a_filter_that_drops_nothing_are_mentioned() -> None:
    actual = {
        "steps": ["cde", "ace", "drm"], "pool": 9, "after_cde": 5, "after_ace": 5,
        "removed_easy": 3, "candidates": 1, "brought_in": 1, "chosen": 3, "without_bias": 0,
    }  # fmt: skip
    sentences = " ".join(report_text.sentences("funnel", {"funnel": actual}))
    assert "ACE dropped none of the 5 samples" in sentences
    assert "3 easy samples were removed, but only 1 candidates could replace them" in sentences


def test_corrected_and_uncorrected_strata_and_changed_samples_are_shown(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    actual = report["chance_correction"]
    assert actual["samples"] == 24
    assert actual["changed"] == len(actual["first_changed"]) == 1
    assert sum(n for row in actual["labels"].values() for n in row.values()) == 24
    assert actual["first_changed"][0]["uncorrected"] == "easy"
    html = (inputs.folder / "report.html").read_text()
    assert "1 of 24 samples change their stratum" in html
    assert actual["first_changed"][0]["sample_id"] in html


def test_the_share_of_samples_that_keep_their_label_is_compared_with_chance(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    pism, ace = report_text.table("retest", report)[1:]
    assert pism == [
        "PISM", "24", "83.3 % [64.0, 93.0]", "40.0 %", "above chance",
    ]  # fmt: skip
    assert ace[-1] == "not shown to be above chance"
    for name in ("report.html", "report.md"):
        text = (inputs.folder / name).read_text()
        assert "83.3 % [64.0, 93.0]" in text
        assert "Too few to judge the selection" in text
        assert "takes 6 with the first responses and 5 with the second; 4 are in both" in text
        assert NOT_RETESTED not in text
    assert report["cost"]["by_stage"]["retest"]["generations"] == 99
    assert report["cost"]["generations"] != 99


def test_the_headline_names_the_selecting_measures(rap_run: tuple[RunInputs, dict]) -> None:
    text = (rap_run[0].folder / "report.md").read_text()
    assert re.search(r"Training on \d+ samples of 24 selected by CDE, ACE and DRM", text)


def test_a_run_that_selects_by_strata_has_no_funnel_correction_or_retest(
    written: tuple[RunInputs, dict],
) -> None:
    inputs, report = written
    assert report["funnel"] is report["chance_correction"] is report["retest"] is None
    html = Path(inputs.folder / "report.html").read_text()
    assert "How many samples each step" not in html
    assert "Chance correction" not in html
    assert NOT_RETESTED in html
    assert NOT_RETESTED in (inputs.folder / "report.md").read_text()
