"""The content of report.json and report.md, and the errors if a run is not finished.

The arms of a run are its models: base (not trained), tuned, and control (trained on as many random
samples). picks are numbers of selected samples.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.records import Measure, Score, Selection, TrainStage
from difftrain.report.build import hide_secrets, write_report
from difftrain.report.inputs import RunInputs, load_run, read_columns
from difftrain.report.text import (
    markdown_table,
    percent,
    points,
    render_markdown,
    sentence,
    sentences,
    table,
    verdict,
)
from difftrain.select.rap import DECISIONS_FOLDER, Decision

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py
RunAndReport = tuple[RunInputs, dict]  # the toy run and the content of its report.json

# Differences of mean scores with their 95 % intervals over n benchmark items.
BETTER = {"mean": 0.05, "low": 0.01, "high": 0.09, "n": 720}
WORSE = {"mean": -0.05, "low": -0.09, "high": -0.01, "n": 720}
UNCLEAR = {"mean": 0.02, "low": -0.02, "high": 0.06, "n": 720}


def test_report_json_has_all_documented_keys(run_and_report: RunAndReport) -> None:
    inputs, report = run_and_report
    content = json.loads((inputs.folder / "report.json").read_text())
    assert content == json.loads(json.dumps(report))
    assert {
        "name",
        "train_stages",
        "seed",
        "model",
        "data",
        "counts",
        "base",
        "tuned",
    } <= content.keys()
    assert {"samples", "quarantined", "strata", "picks"} <= content["counts"].keys()
    assert {"generations", "tokens", "seconds"} <= content["cost"].keys()
    assert {"probe", "score", "train", "evaluate"} <= content["cost"]["seconds"].keys()
    assert content["recipe_difference"] == inputs.recipe_difference
    for arm in ("base", "tuned", "control"):
        assert "mean" not in content[arm]
        for score in (*content[arm].values(), content["means"][arm]):
            assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1
            assert score["n"] > 0


def test_the_counts_of_strata_and_quarantine_add_up_to_all_rows(
    run_and_report: RunAndReport,
) -> None:
    counts = run_and_report[1]["counts"]
    assert counts["samples"] == 26  # 24 samples of the toy run and 2 rejected rows
    assert counts["samples"] == sum(counts["strata"].values()) + counts["quarantined"]
    assert sum(counts["quarantine_reasons"].values()) == counts["quarantined"]
    for arm, picks in (("tuned", counts["picks"]), ("control", counts["control_picks"])):
        assert sum(counts["picks_strata"][arm].values()) == sum(picks.values())
    assert counts["picks_strata"]["tuned"]["hard"] == counts["strata"]["hard"]


def test_a_rejected_row_without_a_line_in_quarantine_jsonl_is_an_error(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    path = inputs.data / "quarantine.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(AssertionError, match=r"1 lines in quarantine\.jsonl"):
        write_report(inputs)
    assert not inputs.folder.exists()


def test_a_scored_sample_stays_in_the_report_even_if_the_probe_failed_on_it_later(
    make_run: MakeRun,
) -> None:
    inputs = make_run(size=9, control=False)
    scores = parquet.read_rows(inputs.score, Score)
    selections = parquet.read_rows(inputs.arms["tuned"].select, Selection)
    selected = {selection.sample_id for selection in selections}
    ids = sorted({score.sample_id for score in scores})
    unscored_id = next(sample_id for sample_id in ids if sample_id not in selected)
    for part in parquet.parts(inputs.score):
        part.unlink()
    parquet.write_all(inputs.score, [score for score in scores if score.sample_id != unscored_id])
    # One of nine samples has no score, and nothing says why.
    with pytest.raises(AssertionError, match="8 samples, but"):
        write_report(inputs)
    # The probe failed on all nine samples. Eight have a score from before, so one is quarantined.
    lines = [
        json.dumps({"source": sample_id, "reason": "no answer: too long"}) for sample_id in ids
    ]
    (inputs.probe / "quarantine.jsonl").write_text("\n".join(lines) + "\n")
    counts = write_report(inputs)["counts"]
    assert sum(counts["strata"].values()) == 8
    assert counts["quarantined"] == 3  # this sample and two rows that were never samples
    assert counts["quarantine_reasons"] == {"image cannot be decoded": 2, "no answer": 1}


def test_samples_dropped_by_sft_are_counted(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    tuned, folder = inputs.arms["tuned"], inputs.folder.parent
    (selection, *_) = parquet.read_rows(tuned.select, Selection)
    sft_select, sft = folder / "select-sft", folder / "sft"
    parquet.write_all(sft_select, [replace(selection, stage=TrainStage.sft)])
    dropped = {
        sft_select: {"no_rationale": 2, "no_format": 1},
        sft: {"no_format": 1, "too_long": 3},
    }
    for stage_folder, counts in dropped.items():
        manifest.write_manifest(
            stage_folder, settings=None, inputs={}, seconds=1.0, counts={"dropped": counts}
        )
    settings = deepcopy(inputs.settings)
    settings["select"]["sft_strata"] = ["medium"]
    arms = {"tuned": replace(tuned, sft_select=sft_select, sft=sft)}
    report = write_report(replace(inputs, arms=arms, settings=settings))
    assert report["dropped"] == {"tuned": {"no_rationale": 2, "no_format": 2, "too_long": 3}}
    for name in ("report.md", "report.html"):
        text = (inputs.folder / name).read_text()
        # 7 = 2 + 1 + 1 + 3, the counts of both stages above.
        assert "SFT (tuned) uses 7 fewer samples than were selected: 2 because" in text
        assert "3 because the sample is longer than sft.cutoff_tokens." in text


def test_unfinished_stages_are_named_and_nothing_is_written(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    (inputs.score / "manifest.json").unlink()
    (inputs.evaluations["tuned"] / "manifest.json").unlink()
    with pytest.raises(MissingArtifact) as error_info:
        write_report(inputs)
    lines = str(error_info.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"no finished score at {inputs.score}")
    assert "python launch/score.py recipe=grpo_hard" in lines[0]
    assert lines[1].startswith(f"no finished evaluate tuned at {inputs.evaluations['tuned']}")
    assert not inputs.folder.exists()


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (BETTER, "better"),
        (WORSE, "worse"),
        (UNCLEAR, "no difference shown"),
        ({"mean": 0.05, "low": 0.0, "high": 0.1, "n": 720}, "no difference shown"),
    ],
)
def test_the_verdict_is_better_or_worse_only_if_the_interval_excludes_zero(
    difference: dict, expected: str
) -> None:
    assert verdict(difference) == expected
    (row,) = table("differences", {"differences": {"tuned - base": difference}})[1:]
    assert row[1].endswith(f": {expected}")


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (BETTER, " raised "),
        (WORSE, " lowered "),
        (UNCLEAR, "No difference is shown after training on "),
    ],
)
def test_the_headline_says_whether_training_helped(
    run_and_report: RunAndReport, difference: dict, expected: str
) -> None:
    report = run_and_report[1]
    headline = sentence("headline", report | {"differences": {"tuned - base": difference}})
    assert expected in headline
    assert headline.count("95 % interval") == 1


def test_the_control_is_shown_beside_base_and_tuned(run_and_report: RunAndReport) -> None:
    inputs, report = run_and_report
    rows = [row[0] for row in table("results", report)]
    assert rows == ["percent", "base", "tuned", "control (random, equal size)"]
    text = (inputs.folder / "report.md").read_text()
    assert "tuned against control" in text
    assert "this run does not show that the selection of samples mattered" in text
    assert "trained: control" in text


def test_control_minus_tuned_is_reported_as_tuned_minus_control(
    run_and_report: RunAndReport,
) -> None:
    inputs, report = run_and_report
    assert "control - tuned" in inputs.differences
    assert list(report["differences"]) == ["tuned - base", "tuned - control", "control - base"]
    assert report["differences"]["tuned - control"] == {
        "mean": 0.021,
        "low": -0.018,
        "high": 0.060,
        "n": 720,
    }


def test_without_a_control_the_report_makes_no_claim_about_the_selection(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False)
    report = write_report(inputs)
    assert "control" not in report
    markdown = render_markdown("report.md.jinja", report=report)
    assert "cannot say whether the selection of samples mattered" in markdown


def test_a_control_that_trained_for_more_steps_is_mentioned(run_and_report: RunAndReport) -> None:
    report = run_and_report[1]
    trained = report["trained"]
    unequal = trained | {"control": trained["control"] | {"steps": 100}}  # 80 in the toy run
    assert any(
        "not equal in size" in line for line in sentences("caveats", report | {"trained": unequal})
    )
    assert not any("not equal in size" in line for line in sentences("caveats", report))


def test_quarantine_reasons_are_in_the_text(run_and_report: RunAndReport) -> None:
    text = (run_and_report[0].folder / "report.md").read_text()
    assert "| image cannot be decoded | 2 |" in text
    assert "| quarantined | 2 |" in text


def test_special_characters_in_a_cell_do_not_break_the_markdown_table() -> None:
    report = {"counts": {"quarantine_reasons": {"a|b\n<b>c": 1}}}
    assert markdown_table("quarantine", report).splitlines() == [
        "| reason | rows |",
        "| --- | --: |",
        "| a\\|b &lt;b>c | 1 |",
    ]
    assert table("quarantine", report)[1] == ["a|b <b>c", "1"]


def test_secrets_in_settings_are_hidden() -> None:
    settings = {
        "judge": {"api_key": "sk-1", "url": "http://me:pw@host/v1"},
        "hub_token": "hf_1",
        "max_new_tokens": 64,
        "keys": ["https://me:pw@host"],
    }
    assert hide_secrets(settings) == {
        "judge": {"api_key": "hidden", "url": "http://hidden@host/v1"},
        "hub_token": "hidden",
        "max_new_tokens": 64,
        "keys": ["https://hidden@host"],
    }


def test_missing_columns_are_named_with_their_record_type(tmp_path: Path) -> None:
    selection = Selection(sample_id="a", stage=TrainStage.grpo, reason="hard")
    parquet.write_part(tmp_path, "00000", [selection])
    with pytest.raises(SchemaError, match="does not have the columns of Decision: sample_id, bias"):
        read_columns(tmp_path, Decision, ["sample_id", "bias"])


def test_decisions_with_wrong_columns_are_refused(make_run: MakeRun) -> None:
    """A Decision says why RAP (a method of selection) selects a sample or not."""
    inputs = make_run(size=9, control=False)
    score = Score(sample_id="a", measure=Measure.pism, value=None, stratum=None)
    folder = inputs.arms["tuned"].select / DECISIONS_FOLDER
    parquet.write_part(folder, "00000", [score])
    with pytest.raises(SchemaError, match="does not have the columns of Decision: sample_id, reas"):
        load_run(inputs)


def test_a_difference_that_rounds_to_zero_has_no_minus_sign() -> None:
    assert [points(value) for value in (-0.0001, 0.0, 0.071, -0.02)] == [
        "+0.0", "+0.0", "+7.1", "\u22122.0",
    ]  # fmt: skip
    assert [percent(value) for value in (-0.0001, 0.071, -0.02)] == ["0.0", "7.1", "\u22122.0"]
