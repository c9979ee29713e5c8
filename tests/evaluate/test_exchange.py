"""Predictions go out as the harness's table, and two checkpoints are compared item by item."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from difftrain import evaluate
from difftrain.config.evaluate import AnswerTags, EvaluateConfig, HarnessOverrides
from difftrain.evaluate import compare as comparison
from difftrain.evaluate import write_results
from difftrain.evaluate.generate import ResponseKey, item_hashes
from difftrain.evaluate.items import BenchmarkItem
from difftrain.evaluate.types import configured_rules
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult
from difftrain.shapes import benchmarks as miniatures

ROOT = Path(__file__).resolve().parents[2]
SAID = ["B", "None", "a\tb\n| c |\0", '"quoted"', "", "<answer>A</answer>", "word " * 20_000]


def marks_of(
    asked: list[BenchmarkItem], said: list[str], config: EvaluateConfig
) -> list[ItemResult]:
    found = []
    for each, response in zip(asked, said, strict=True):
        prediction = write_results.prediction(response, config)
        graded = evaluate.grade_prediction(
            each.benchmark, prediction, each.item, None, configured_rules(config)
        )
        found.append(evaluate.item_result(each.benchmark, each.item, response, graded))
    return found


@pytest.fixture
def star() -> list[BenchmarkItem]:
    return [BenchmarkItem("shapes/MMStar", item) for item in miniatures.items("MMStar", len(SAID))]


def test_the_table_holds_the_items_columns_and_what_the_scorer_was_given(
    star: list[BenchmarkItem], tmp_path: Path
) -> None:
    config = EvaluateConfig(benchmarks=["shapes/MMStar"])
    marks = marks_of(star, SAID, config)
    (path,) = write_results.write_predictions(tmp_path, "org/My model", star, marks, config)
    assert path.name == "My-model_shapes-MMStar.tsv"
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    assert list(table["index"]) == [each.item["index"] for each in star]
    assert {"question", "A", "B", "C", "D", "answer", "category", "prediction"} <= set(table)
    assert "image" not in table
    wanted = ["B", "None", "a\tb\n| c |", '"quoted"', "", "A", SAID[-1]]
    assert list(table["prediction"]) == wanted
    config.answer_tags = AnswerTags.raw
    (path,) = write_results.write_predictions(tmp_path, "m", star, marks, config)
    raw = pd.read_csv(path, sep="\t", keep_default_na=False)["prediction"]
    assert raw[5] == "<answer>A</answer>"


def test_scoring_the_exported_table_as_the_harness_reads_it_gives_the_same_scores(
    star: list[BenchmarkItem], tmp_path: Path
) -> None:
    config = EvaluateConfig(benchmarks=["shapes/MMStar"])
    marks = marks_of(star, SAID, config)
    (path,) = write_results.write_predictions(tmp_path, "m", star, marks, config)
    table = pd.read_csv(path, sep="\t")  # with pandas' own idea of what is missing
    for row, each in zip(table.to_dict("records"), marks, strict=True):
        assert evaluate.grade_prediction("MMStar", str(row["prediction"]), row).score == each.score


def test_official_tables_have_the_harness_file_names_and_not_asked_items_are_empty(
    tmp_path: Path,
) -> None:
    assert (
        write_results.prediction_file("a/Qwen2.5-VL-7B", "MathVista")
        == "Qwen2.5-VL-7B_MathVista_MINI.tsv"
    )
    assert write_results.prediction_file("tiny", "MMMU") == "tiny_MMMU_DEV_VAL.tsv"
    assert write_results.prediction(None, EvaluateConfig()) == ""


def marks(scores: list[float | None], benchmark: str = "MMStar") -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            item_id=f"s/0/{place}/0",
            response=f"said {score}",
            extracted=None,
            score=score,
            graded_by=GradedBy.rule,
            category="s",
        )
        for place, score in enumerate(scores)
    ]


def test_a_comparison_counts_items_won_lost_and_tied() -> None:
    before = [*marks([1.0, 0.0, 0.0, 1.0, None]), *marks([0.0, 0.0], "MMVet")]
    after = [*marks([1.0, 1.0, 1.0, 0.0, 1.0]), *marks([0.5, 0.0], "MMVet")]
    star, vet = comparison.compare_results(before, after, resamples=200)
    assert (star.won, star.lost, star.tied) == (2, 1, 1)
    assert (star.before, star.after, star.difference.mean) == (0.5, 0.75, 0.25)
    assert (star.difference.n, star.difference.left_out) == (4, 1)
    assert star.difference.low <= 0.25 <= star.difference.high
    assert (vet.won, vet.after) == (1, 0.25)
    changed = comparison.item_diffs(before, after)
    assert [diff["item_id"] for diff in changed] == ["s/0/1/0", "s/0/2/0", "s/0/3/0", "s/0/0/0"]
    assert (changed[0]["response_before"], changed[0]["response_after"]) == ("said 0.0", "said 1.0")


def test_other_items_on_one_side_are_refused() -> None:
    with pytest.raises(ValueError, match="one side only"):
        comparison.compare_results(marks([1.0]), marks([1.0, 0.0]))


def test_a_side_on_which_nothing_was_decided_is_refused_with_the_reason() -> None:
    decided = marks([1.0, 0.0], "MMVet")
    none = [replace(each, score=0.0, graded_by=None) for each in decided]
    with pytest.raises(ValueError, match=r"MMVet of the second has no score .* needs a judge"):
        comparison.compare_results(decided, none)
    with pytest.raises(ValueError, match="MMVet of the first has no score"):
        comparison.compare_results(none, decided)


def noted(keys: list[ResponseKey]) -> dict[str, str]:
    """The inputs of manifest.json that say what the items were."""
    return {comparison.ITEMS + name: each for name, each in item_hashes(keys).items()}


def finished(
    folder: Path, scores: list[float | None], words: str = "asked", **settings: Any
) -> Path:
    parquet.write_part(folder, "r000-00000", marks(scores))
    under = {"rules": "2025-11", "system": "none", "judge": "none", **settings}
    keys = [(mark.benchmark, mark.item_id, words) for mark in marks(scores)]
    inputs = {"checkpoint": folder.name, **noted(keys)}
    manifest.write_manifest(folder, settings=under, inputs=inputs, seconds=0, counts={})
    return folder


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_launcher_writes_a_page_a_json_and_every_changed_item(tmp_path: Path) -> None:
    one = finished(tmp_path / "evaluate" / "one", [0.0, 0.0, 1.0])
    two = finished(tmp_path / "evaluate" / "two", [1.0, 0.0, 1.0])
    done = compare(one, two)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "compare" / "one-two"
    assert done.stdout.strip().splitlines()[-1] == f"output: {folder}"
    (row,) = json.loads((folder / "comparison.json").read_text())["benchmarks"]
    assert (row["won"], row["lost"], row["tied"]) == (1, 0, 2)
    assert len((folder / "item_diffs.jsonl").read_text().splitlines()) == 1
    page = (folder / "comparison.md").read_text()
    assert page.startswith("# two against one")
    assert "* judge: none" in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rules": "2026-08"}, "rules: 2025-11 and 2026-08"),
        ({"judge": "gpt"}, "judge: none and gpt"),
        ({"judge_server": "1f"}, "judge_server: None and 1f"),
        ({"engine": "http"}, "engine: None and http"),
        ({"dtype": "bfloat16"}, "dtype: None and bfloat16"),
        ({"words": "asked otherwise"}, "different items of MMStar"),
        ({"harness_overrides": {"zero": True}}, "harness_overrides: None and {'zero': True}"),
    ],
)
def test_evaluations_under_other_settings_are_not_compared(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    one, two = finished(tmp_path / "one", [0.0]), finished(tmp_path / "two", [1.0], **changes)
    done = compare(one, two)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_evaluation_that_does_not_say_what_its_items_were_is_refused(tmp_path: Path) -> None:
    new, old = finished(tmp_path / "new", [0.0]), finished(tmp_path / "old", [1.0])
    made = json.loads((old / "manifest.json").read_text())
    del made["inputs"]["items of MMStar"]
    (old / "manifest.json").write_text(json.dumps(made))
    done = compare(new, old)
    assert done.returncode == 2
    assert f"{old}: its manifest.json does not say what its items were" in done.stderr


def test_items_are_the_same_in_any_order_and_others_with_other_words_or_pictures() -> None:
    keys = [("MMStar", "1", "a"), ("MMStar", "2", "b"), ("MMVet", "1", "a")]
    assert noted(keys[::-1]) == noted(keys)
    other = noted([*keys[:1], ("MMStar", "2", "c"), *keys[2:]])
    assert comparison.differing_items(noted(keys), other) == ["MMStar"]
    assert comparison.differing_items(noted(keys), noted(keys[:2])) == ["MMVet"]


def test_a_folder_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    done = compare(tmp_path, tmp_path)
    assert done.returncode == 2
    assert f"no evaluation at {tmp_path}" in done.stderr


def test_every_deviation_is_a_setting_that_comparisons_watch() -> None:
    assert "harness_overrides" in comparison.MUST_AGREE
    assert HarnessOverrides().fallback == "wrong"
    off = [each for each in HarnessOverrides.__slots__ if each != "fallback"]
    assert not any(getattr(HarnessOverrides(), name) for name in off)


def test_the_made_page_survives_pipes_in_names(tmp_path: Path, write_tsv: Callable) -> None:
    text = comparison.markdown(
        ["a", "b"], comparison.compare_results(marks([1.0, 0.0]), marks([0.0, 0.0])), {}
    )
    assert "| MMStar | 50.00 | 0.00 | -50.00 |" in text
