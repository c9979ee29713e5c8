"""Two evaluations are compared item by item.

An evaluation is the folder that launch/evaluate.py writes: an ItemResult per benchmark item, and
manifest.json with the settings and a hash of the items of every benchmark.
"""

import json
import subprocess
import sys
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


def results_with(scores: list[float | None], benchmark: str = "MMStar") -> list[ItemResult]:
    return [
        ItemResult(
            benchmark=benchmark,
            item_id=f"s/0/{i}/0",  # category/set/figure/question, as in HallusionBench
            response=f"response {score}",
            extracted=None,
            score=score,
            graded_by=GradedBy.rule,
            category="s",
        )
        for i, score in enumerate(scores)
    ]


def test_a_comparison_counts_items_won_lost_and_tied() -> None:
    before = [*results_with([1.0, 0.0, 0.0, 1.0, None]), *results_with([0.0, 0.0], "MMVet")]
    after = [*results_with([1.0, 1.0, 1.0, 0.0, 1.0]), *results_with([0.5, 0.0], "MMVet")]
    # `star` compares MMStar and `vet` MM-Vet; an interval takes 200 bootstrap resamples.
    star, vet = comparison.compare_results(before, after, resamples=200)
    assert (star.won, star.lost, star.tied) == (2, 1, 1)
    assert (star.before, star.after, star.difference.mean) == (0.5, 0.75, 0.25)
    assert (star.difference.n, star.difference.left_out) == (4, 1)  # one score is None
    assert star.difference.low <= 0.25 <= star.difference.high
    assert (vet.won, vet.after) == (1, 0.25)  # the mean of 0.5 and 0.0
    diffs = comparison.item_diffs(before, after)
    # The scores of three items of MMStar and of the first item of MM-Vet differ.
    assert [diff["item_id"] for diff in diffs] == ["s/0/1/0", "s/0/2/0", "s/0/3/0", "s/0/0/0"]
    assert (diffs[0]["response_before"], diffs[0]["response_after"]) == (
        "response 0.0",
        "response 1.0",
    )


def test_results_of_different_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="items are in only one result"):
        comparison.compare_results(results_with([1.0]), results_with([1.0, 0.0]))


def test_the_error_for_results_that_neither_rule_nor_judge_decided_says_why() -> None:
    decided = results_with([1.0, 0.0], "MMVet")
    undecided = [replace(result, score=0.0, graded_by=None) for result in decided]
    with pytest.raises(ValueError, match=r"MMVet of the second has no score .* needs a judge"):
        comparison.compare_results(decided, undecided)
    with pytest.raises(ValueError, match="MMVet of the first has no score"):
        comparison.compare_results(undecided, decided)


def item_inputs(keys: list[ResponseKey]) -> dict[str, str]:
    """The inputs in manifest.json that identify the items."""
    return {comparison.ITEMS_PREFIX + name: digest for name, digest in item_hashes(keys).items()}


def write_evaluation(
    folder: Path, scores: list[float | None], prompt_hash: str = "a", **changes: Any
) -> Path:
    """Write a finished evaluation of MMStar with these scores; `changes` are other settings."""
    parquet.write_part(folder, "r000-00000", results_with(scores))  # part 0 of rank 0
    settings = {"rules": "2025-11", "system": "none", "judge": "none", **changes}
    keys = [(result.benchmark, result.item_id, prompt_hash) for result in results_with(scores)]
    inputs = {"checkpoint": folder.name, **item_inputs(keys)}
    manifest.write_manifest(folder, settings=settings, inputs=inputs, seconds=0, counts={})
    return folder


def run_compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_launcher_writes_markdown_json_and_every_changed_item(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "evaluate" / "one", [0.0, 0.0, 1.0])
    two = write_evaluation(tmp_path / "evaluate" / "two", [1.0, 0.0, 1.0])
    process = run_compare(one, two)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "compare" / "one-two"
    assert process.stdout.strip().splitlines()[-1] == f"output: {folder}"
    (row,) = json.loads((folder / "comparison.json").read_text())["benchmarks"]
    assert (row["won"], row["lost"], row["tied"]) == (1, 0, 2)
    assert len((folder / "item_diffs.jsonl").read_text().splitlines()) == 1
    text = (folder / "comparison.md").read_text()
    assert text.startswith("# two against one")
    assert "* judge: none" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": "2026-08"}, "rules: 2025-11 and 2026-08"),
        ({"judge": "gpt"}, "judge: none and gpt"),
        ({"judge_server": "1f"}, "judge_server: None and 1f"),  # a hash of the server's address
        ({"engine": "http"}, "engine: None and http"),
        ({"dtype": "bfloat16"}, "dtype: None and bfloat16"),
        ({"prompt_hash": "b"}, "different items of MMStar"),
        # `zero` is a deviation from the reference harness in the scoring of MathVista.
        ({"harness_overrides": {"zero": True}}, "harness_overrides: None and {'zero': True}"),
    ],
)
def test_evaluations_with_different_settings_are_not_compared(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    one = write_evaluation(tmp_path / "one", [0.0])
    two = write_evaluation(tmp_path / "two", [1.0], **changes)
    process = run_compare(one, two)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_an_evaluation_whose_manifest_lacks_the_items_is_not_compared(tmp_path: Path) -> None:
    new = write_evaluation(tmp_path / "new", [0.0])
    old = write_evaluation(tmp_path / "old", [1.0])
    content = json.loads((old / "manifest.json").read_text())
    del content["inputs"]["items of MMStar"]
    (old / "manifest.json").write_text(json.dumps(content))
    process = run_compare(new, old)
    assert process.returncode == 2
    assert f"{old}: its manifest.json does not say which items were evaluated" in process.stderr


def test_items_differ_by_their_prompts_and_number_but_not_by_their_order() -> None:
    # benchmark, item id, hash of the prompt
    keys = [("MMStar", "1", "a"), ("MMStar", "2", "b"), ("MMVet", "1", "a")]
    assert item_inputs(keys[::-1]) == item_inputs(keys)
    changed = item_inputs([*keys[:1], ("MMStar", "2", "c"), *keys[2:]])
    assert comparison.changed_benchmarks(item_inputs(keys), changed) == ["MMStar"]
    assert comparison.changed_benchmarks(item_inputs(keys), item_inputs(keys[:2])) == ["MMVet"]


def test_the_message_names_a_folder_that_is_no_evaluation(tmp_path: Path) -> None:
    process = run_compare(tmp_path, tmp_path)
    assert process.returncode == 2
    assert f"no evaluation at {tmp_path}" in process.stderr


def test_harness_overrides_must_be_equal_and_are_off_by_default() -> None:
    """Overrides are deviations from the reference harness (VLMEvalKit); `fallback` alone is on.

    An item that neither rules nor judge decide is wrong; the harness guesses an option at random.
    """
    assert "harness_overrides" in comparison.MUST_AGREE
    assert HarnessOverrides().fallback == "wrong"
    switches = [name for name in HarnessOverrides.__slots__ if name != "fallback"]
    assert not any(getattr(HarnessOverrides(), name) for name in switches)


def test_the_table_has_both_scores_and_their_difference_in_percent() -> None:
    rows = comparison.compare_results(results_with([1.0, 0.0]), results_with([0.0, 0.0]))
    text = comparison.markdown(["a", "b"], rows, settings={})
    assert "| MMStar | 50.00 | 0.00 | -50.00 |" in text
