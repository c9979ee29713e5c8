"""Two checkpoints are compared item by item."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrain.config.evaluate import HarnessOverrides
from difftrain.evaluate import compare as comparison
from difftrain.evaluate.generate import ResponseKey, item_hashes
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult

ROOT = Path(__file__).resolve().parents[2]


def results(scores: list[float | None], benchmark: str = "MMStar") -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            item_id=f"s/0/{i}/0",
            response=f"response {score}",
            extracted=None,
            score=score,
            graded_by=GradedBy.rule,
            category="s",
        )
        for i, score in enumerate(scores)
    ]


def test_a_comparison_counts_items_won_lost_and_tied() -> None:
    before = [*results([1.0, 0.0, 0.0, 1.0, None]), *results([0.0, 0.0], "MMVet")]
    after = [*results([1.0, 1.0, 1.0, 0.0, 1.0]), *results([0.5, 0.0], "MMVet")]
    star, vet = comparison.compare_results(before, after, resamples=200)
    assert (star.won, star.lost, star.tied) == (2, 1, 1)
    assert (star.before, star.after, star.difference.mean) == (0.5, 0.75, 0.25)
    assert (star.difference.n, star.difference.left_out) == (4, 1)
    assert star.difference.low <= 0.25 <= star.difference.high
    assert (vet.won, vet.after) == (1, 0.25)
    diffs = comparison.item_diffs(before, after)
    assert [diff["item_id"] for diff in diffs] == ["s/0/1/0", "s/0/2/0", "s/0/3/0", "s/0/0/0"]
    assert (diffs[0]["response_before"], diffs[0]["response_after"]) == (
        "response 0.0",
        "response 1.0",
    )


def test_other_items_on_one_side_are_refused() -> None:
    with pytest.raises(ValueError, match="one side only"):
        comparison.compare_results(results([1.0]), results([1.0, 0.0]))


def test_a_side_on_which_nothing_was_decided_is_refused_with_the_reason() -> None:
    decided = results([1.0, 0.0], "MMVet")
    none = [replace(each, score=0.0, graded_by=None) for each in decided]
    with pytest.raises(ValueError, match=r"MMVet of the second has no score .* needs a judge"):
        comparison.compare_results(decided, none)
    with pytest.raises(ValueError, match="MMVet of the first has no score"):
        comparison.compare_results(none, decided)


def item_inputs(keys: list[ResponseKey]) -> dict[str, str]:
    """The inputs of manifest.json that say what the items were."""
    return {comparison.ITEMS_PREFIX + name: each for name, each in item_hashes(keys).items()}


def finished(
    folder: Path, scores: list[float | None], prompt_hash: str = "a", **settings: Any
) -> Path:
    parquet.write_part(folder, "r000-00000", results(scores))
    under = {"rules": "2025-11", "system": "none", "judge": "none", **settings}
    keys = [(mark.benchmark, mark.item_id, prompt_hash) for mark in results(scores)]
    inputs = {"checkpoint": folder.name, **item_inputs(keys)}
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
    ("changes", "message"),
    [
        ({"rules": "2026-08"}, "rules: 2025-11 and 2026-08"),
        ({"judge": "gpt"}, "judge: none and gpt"),
        ({"judge_server": "1f"}, "judge_server: None and 1f"),
        ({"engine": "http"}, "engine: None and http"),
        ({"dtype": "bfloat16"}, "dtype: None and bfloat16"),
        ({"prompt_hash": "b"}, "different items of MMStar"),
        ({"harness_overrides": {"zero": True}}, "harness_overrides: None and {'zero': True}"),
    ],
)
def test_evaluations_under_other_settings_are_not_compared(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    one, two = finished(tmp_path / "one", [0.0]), finished(tmp_path / "two", [1.0], **changes)
    done = compare(one, two)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_evaluation_that_does_not_say_what_its_items_were_is_refused(tmp_path: Path) -> None:
    new, old = finished(tmp_path / "new", [0.0]), finished(tmp_path / "old", [1.0])
    content = json.loads((old / "manifest.json").read_text())
    del content["inputs"]["items of MMStar"]
    (old / "manifest.json").write_text(json.dumps(content))
    done = compare(new, old)
    assert done.returncode == 2
    assert f"{old}: its manifest.json does not say which items were evaluated" in done.stderr


def test_items_are_the_same_in_any_order_and_others_with_other_words_or_images() -> None:
    keys = [("MMStar", "1", "a"), ("MMStar", "2", "b"), ("MMVet", "1", "a")]
    assert item_inputs(keys[::-1]) == item_inputs(keys)
    other = item_inputs([*keys[:1], ("MMStar", "2", "c"), *keys[2:]])
    assert comparison.changed_benchmarks(item_inputs(keys), other) == ["MMStar"]
    assert comparison.changed_benchmarks(item_inputs(keys), item_inputs(keys[:2])) == ["MMVet"]


def test_a_folder_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    done = compare(tmp_path, tmp_path)
    assert done.returncode == 2
    assert f"no evaluation at {tmp_path}" in done.stderr


def test_harness_overrides_are_settings_that_comparisons_watch() -> None:
    assert "harness_overrides" in comparison.MUST_AGREE
    assert HarnessOverrides().fallback == "wrong"
    off = [each for each in HarnessOverrides.__slots__ if each != "fallback"]
    assert not any(getattr(HarnessOverrides(), name) for name in off)


def test_the_made_page_survives_pipes_in_names(tmp_path: Path, write_tsv: Callable) -> None:
    text = comparison.markdown(
        ["a", "b"], comparison.compare_results(results([1.0, 0.0]), results([0.0, 0.0])), {}
    )
    assert "| MMStar | 50.00 | 0.00 | -50.00 |" in text
