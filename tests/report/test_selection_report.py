"""What the report says about the selection of samples.

RAP selects in three steps. CDE drops samples that can be answered from the text alone: their
discrepancy D, the accuracy with minus without the image, is low. ACE drops samples whose response
depends on one of its tokens. DRM replaces easy samples. PISM is another measure of difficulty; its
chance correction allows for guessing. The retest measures some samples again with other seeds.
"""

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

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py
# In the retest, 20 of 24 samples get the same stratum again. low and high are the interval of this
# share, by_chance is the share to expect by chance.
AGREEMENT = {"n": 24, "same": 20, "share": 20 / 24, "low": 0.64, "high": 0.93, "by_chance": 0.4}
# The content of reliability.json; `chosen` compares the selections of both measurements.
RETEST = {
    "measures": {"pism": AGREEMENT, "ace": AGREEMENT | {"by_chance": 0.8}},
    "chosen": {"pool": 24, "first": 6, "second": 5, "common": 4, "common_by_chance": 1.25},
}

NOT_RETESTED = report_text.sentence("retest", {"retest": None})


def run_rap(inputs: RunInputs) -> rap.RapResult:
    """RAP's selection from the toy run's samples. Each of its decisions occurs at least once.

    Every third sample has a low discrepancy (dropped by CDE), every fifth a high bias (dropped by
    ACE). The bias is a logarithm. Sample 1 has none, as if its response were too short for ACE.
    Difficulty 0 is easy (removed by DRM).
    """
    ids = sorted({row.sample_id for row in parquet.read_rows(inputs.score, Score)})
    return rap.run_rap(
        sample_id_N=ids,  # N: the axis of samples
        discrepancy_N=[0.8 if i % 3 else 0.2 for i in range(len(ids))],
        bias_N=[None if i == 1 else -1.0 if i % 5 == 0 else -5.0 for i in range(len(ids))],
        difficulty_N=[i % 4 / 5 for i in range(len(ids))],
        draws=5,  # responses per sample
    )


@pytest.fixture(scope="module")
def rap_run(make_run: MakeRun) -> tuple[RunInputs, dict]:
    """A toy run whose samples RAP selected, with chance correction and a retest.

    Returns its RunInputs and the content of report.json.
    """
    inputs = make_run(control=False)
    rap_result, folder = run_rap(inputs), inputs.arms["tuned"].select
    for part in parquet.parts(folder):
        part.unlink()  # the selection by PISM; RAP's selection replaces it
    parquet.write_all(folder, rap_result.selections)
    parquet.write_all(folder / rap.DECISIONS_FOLDER, rap_result.decisions)
    manifest.write_manifest(
        folder, settings=None, inputs={}, seconds=0.1,
        counts={"picks": len(rap_result.selections), "funnel": rap_result.funnel},
    )  # fmt: skip
    # One sample changes: without the correction, it is easy.
    uncorrected = [
        row for row in parquet.read_rows(inputs.score, Score) if row.measure is Measure.pism
    ]
    uncorrected.sort(key=lambda row: row.stratum is Stratum.easy)
    uncorrected[0] = replace(uncorrected[0], stratum=Stratum.easy)
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
    funnel = json.loads((inputs.folder / "report.json").read_text())["funnel"]
    assert funnel["pool"] == 24
    remaining = funnel["after_ace"] - funnel["removed_easy"]
    assert remaining + funnel["brought_in"] == funnel["chosen"] > funnel["brought_in"] > 0
    assert funnel["without_bias"] == 1  # sample 1 in run_rap


def test_the_page_shows_the_funnel_as_a_figure_with_counts(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    html = (inputs.folder / "report.html").read_text()
    assert "Selected by CDE, ACE and DRM" in html
    (url,) = re.findall(r'src="([^"]*)" alt="How many samples each step', html)
    assert url.startswith("data:image/svg+xml;base64,")
    assert b"<svg" in b64decode(url.partition(",")[2])
    rows = report_text.table("funnel", report["funnel"])[1:]
    assert [row[0] for row in rows] == [
        "pool", "CDE: the image helps", "ACE: not biased", "DRM: not easy", "DRM: replaced",
        "trained on",
    ]  # fmt: skip
    assert rows[0][1] == "24"
    assert rows[-1][1] == str(sum(report["counts"]["picks"].values()))
    assert "1 responses are too short for an ACE value" in html


def test_the_page_shows_why_a_sample_was_selected_or_not(rap_run: tuple[RunInputs, dict]) -> None:
    html = (rap_run[0].folder / "report.html").read_text()
    assert "<dt>left out</dt><dd>dropped by CDE: D = 0.20" in html
    assert "<dt>trained on</dt><dd>kept: D = 0.80" in html


def test_a_run_that_selects_by_ace_alone_shows_no_step_of_cde_or_drm(
    rap_run: tuple[RunInputs, dict],
) -> None:
    funnel = rap_run[1]["funnel"] | {"steps": ["ace"]}
    assert [row[0] for row in report_text.table("funnel", funnel)[1:]] == [
        "pool",
        "ACE: not biased",
        "trained on",
    ]


def test_a_step_that_drops_nothing_and_a_lack_of_replacements_are_mentioned() -> None:
    funnel = {
        "steps": ["cde", "ace", "drm"], "pool": 9, "after_cde": 5, "after_ace": 5,
        "removed_easy": 3, "candidates": 1, "brought_in": 1, "chosen": 3, "without_bias": 0,
    }  # fmt: skip
    sentences = " ".join(report_text.sentences("funnel", {"funnel": funnel}))
    assert "ACE dropped none of the 5 samples" in sentences
    assert "3 easy samples were removed, but only 1 candidates could replace them" in sentences


def test_corrected_and_uncorrected_strata_and_changed_samples_are_shown(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    correction = report["chance_correction"]
    assert correction["samples"] == 24
    assert correction["changed"] == len(correction["first_changed"]) == 1
    counts = [count for row in correction["labels"].values() for count in row.values()]
    assert sum(counts) == 24
    assert correction["first_changed"][0]["uncorrected"] == "easy"
    html = (inputs.folder / "report.html").read_text()
    assert "1 of 24 samples change their stratum" in html
    assert correction["first_changed"][0]["sample_id"] in html


def test_the_share_of_samples_with_the_same_stratum_in_the_retest_is_compared_with_chance(
    rap_run: tuple[RunInputs, dict],
) -> None:
    inputs, report = rap_run
    pism, ace = report_text.table("retest", report)[1:]
    assert pism == [
        "PISM", "24", "83.3 % [64.0, 93.0]", "40.0 %", "above chance",
    ]  # fmt: skip
    assert ace[-1] == "not shown to be above chance"  # 80 % by chance is inside its interval
    for name in ("report.html", "report.md"):
        text = (inputs.folder / name).read_text()
        assert "83.3 % [64.0, 93.0]" in text
        assert "Too few to judge the selection" in text
        assert "takes 6 with the first responses and 5 with the second; 4 are in both" in text
        assert NOT_RETESTED not in text
    # rap_run writes 99 responses for the retest. The cost by stage lists them, but the total
    # counts only the probe's responses.
    assert report["cost"]["by_stage"]["retest"]["generations"] == 99
    assert report["cost"]["generations"] != 99


def test_the_headline_names_the_selecting_measures(rap_run: tuple[RunInputs, dict]) -> None:
    text = (rap_run[0].folder / "report.md").read_text()
    assert re.search(r"Training on \d+ samples of 24 selected by CDE, ACE and DRM", text)


def test_a_run_that_selects_by_strata_has_no_funnel_correction_or_retest(
    run_and_report: tuple[RunInputs, dict],
) -> None:
    inputs, report = run_and_report
    assert report["funnel"] is report["chance_correction"] is report["retest"] is None
    html = Path(inputs.folder / "report.html").read_text()
    assert "How many samples each step" not in html
    assert "Chance correction" not in html
    assert NOT_RETESTED in html
    assert NOT_RETESTED in (inputs.folder / "report.md").read_text()
