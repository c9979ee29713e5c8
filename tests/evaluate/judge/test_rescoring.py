"""Responses are stored separately from results. The model is called only for missing responses.

The fixtures `server` (a fake judge server) and `config` are in conftest.py. shapes/NAME is a
built-in imitation of the benchmark NAME; `config` has six items of each of six benchmarks.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.config.evaluate import AnswerTags, ContaminationPolicy, SystemPrompt
from difftrain.config.judge import STAND_IN, JudgeKind, server_hash
from difftrain.config.run_config import RunConfig
from difftrain.evaluate import grade
from difftrain.evaluate.generate import ResponseStore, StoredResponse, response_key
from difftrain.evaluate.loading import load_items
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Engine
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.records import Arm, ItemResult

UNREADABLE = "~ " * 40  # a response from which no rule reads an answer


def evaluate_base(config: RunConfig, make_engine: Callable[[int, int], Engine]) -> Path:
    """Evaluate the base model; returns the folder of the results."""
    paths = RunPaths(config)
    folders = grade.EvaluationFolders(
        paths.responses(Arm.base), paths.evaluation(Arm.base), paths.judge_replies
    )
    pixels = config.data.min_pixels, config.data.max_pixels
    grade.evaluate(make_engine, folders, "tiny", config.evaluate, config.model, pixels, World())
    return folders.results


def no_engine(*_pixels: int) -> Engine:
    """A `make_engine` that fails, for tests in which all responses are stored."""
    raise AssertionError("an engine was made although all responses are stored")


def store_responses(config: RunConfig, text: str) -> None:
    """Store this text as the base model's response to every item, in part 0 of rank 0."""
    rows = [
        StoredResponse(benchmark=name, item_id=item_id, prompt_hash=digest, response=text)
        for name, item_id, digest in map(response_key, load_items(config.evaluate))
    ]
    parquet.write_part(RunPaths(config).responses(Arm.base), "r000-00000", rows)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_other_rules_and_another_judge_need_no_model(server, config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.shapes
    config.evaluate.limit = 3
    store_responses(config, "<answer>A</answer>")
    first = evaluate_base(config, no_engine)
    results = parquet.read_rows(first, ItemResult)
    assert len(results) == 18  # three items of each of six benchmarks
    folders = {first}
    for change in (
        {"rules": "2026-08"},
        {"answer_tags": AnswerTags.raw},
        {"resamples": 200},
        {"judge": JudgeKind.none},
        {"judge": JudgeKind.endpoint},
        {"benchmarks": ["shapes/MMStar"]},
        {"limit": 2},
    ):
        other = replace(config, evaluate=replace(config.evaluate, **change))
        folder = evaluate_base(other, no_engine)
        assert folder not in folders, change
        folders.add(folder)
        responses = {
            result.item_id: result.response
            for result in results
            if result.benchmark == "shapes/MMStar"
        }
        for result in parquet.read_rows(folder, ItemResult):
            if result.benchmark == "shapes/MMStar":
                assert result.response == responses[result.item_id]


def test_settings_that_change_no_result_do_not_change_the_folders(config: RunConfig) -> None:
    before = RunPaths(config).evaluation(Arm.base), RunPaths(config).responses(Arm.base)
    config.evaluate.judge_client.max_concurrency = 3
    config.evaluate.judge_client.max_calls = 5
    config.evaluate.contamination = ContaminationPolicy.warn
    assert (RunPaths(config).evaluation(Arm.base), RunPaths(config).responses(Arm.base)) == before


def test_another_system_prompt_has_another_folder_of_responses(config: RunConfig) -> None:
    before = RunPaths(config).responses(Arm.base)
    config.evaluate.system = SystemPrompt.none
    assert RunPaths(config).responses(Arm.base) != before


def test_another_judge_model_has_another_folder_of_results(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (
        RunPaths(config).evaluation(Arm.base),
        RunPaths(config).run,
        RunPaths(config).responses(Arm.base),
    )
    monkeypatch.setenv("JUDGE_MODEL", "another")
    after = (
        RunPaths(config).evaluation(Arm.base),
        RunPaths(config).run,
        RunPaths(config).responses(Arm.base),
    )
    # Only the folder of the responses is the same.
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_with_more_items_only_the_new_ones_are_requested(
    tiny: LoadedModel, config: RunConfig
) -> None:
    def hf_engine(*_: int) -> Engine:
        return HfEngine(tiny, config.model)

    config.evaluate.judge = JudgeKind.shapes
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMStar"], 2
    evaluate_base(config, hf_engine)
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMMU", "shapes/MMStar"], 3
    evaluate_base(config, hf_engine)
    rows = parquet.read_rows(RunPaths(config).responses(Arm.base), StoredResponse)
    # Three items of each of two benchmarks; those of the first evaluation are stored once.
    assert len(rows) == len({(row.benchmark, row.item_id) for row in rows}) == 3 + 3


def test_an_item_whose_image_or_text_changed_is_requested_again(config: RunConfig) -> None:
    item = load_items(config.evaluate)[0]
    for column, other in (("image", b"another image"), ("question", "another question")):
        changed = replace(item, row={**item.row, column: other})
        assert changed.key == item.key
        assert response_key(changed) != response_key(item)
    store_responses(config, "A")
    store = ResponseStore(RunPaths(config).responses(Arm.base))
    keys = [response_key(item), response_key(changed)]
    assert store.missing(keys) == {response_key(changed)}


def test_a_second_run_makes_no_call_and_changes_no_file(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: "0.5"
    store_responses(config, UNREADABLE)
    folder = evaluate_base(config, no_engine)
    first_manifest, num_calls = manifest.read_manifest(folder), len(server.bodies)
    assert num_calls > 6  # more than one benchmark needs the judge
    assert evaluate_base(config, no_engine) == folder
    assert manifest.read_manifest(folder) == first_manifest
    for path in (*parquet.parts(folder), folder / "manifest.json", folder / "summary.json"):
        path.unlink()
    num_replies = first_manifest["counts"]["judge"]["replies"]
    evaluate_base(config, no_engine)
    assert len(server.bodies) == num_calls
    assert manifest.read_manifest(folder)["counts"]["judge"]["from_cache"] == num_replies


def test_an_item_on_which_the_judge_failed_is_judged_again_by_the_next_run(
    server, config: RunConfig
) -> None:
    # Every third request is refused.
    server.reply = lambda prompt, number: "A" if number % 3 else (400, b"", {})
    store_responses(config, UNREADABLE)
    folder = evaluate_base(config, no_engine)
    failed = [result for result in parquet.read_rows(folder, ItemResult) if result.score is None]
    counts = manifest.read_manifest(folder)["counts"]
    assert counts["unscored"] == counts["judge"]["failed_items"] == len(failed)
    assert len(failed) > 3
    num_calls = len(server.bodies)
    # MM-Vet's prompt is a table whose last cell, the score, is empty.
    server.reply = lambda prompt, number: "0.5" if prompt.endswith("| ") else "A"
    assert evaluate_base(config, no_engine) == folder
    assert len(server.bodies) > num_calls
    results = parquet.read_rows(folder, ItemResult)
    assert len(results) == 36  # six items of each of six benchmarks
    assert all(result.score is not None for result in results)
    assert manifest.read_manifest(folder)["counts"]["unscored"] == 0
    assert manifest.read_manifest(folder)["counts"]["judge"]["from_cache"] > 0


def test_there_is_no_manifest_while_failed_items_are_judged_again(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: (400, b"", {})
    store_responses(config, UNREADABLE)
    folder = evaluate_base(config, no_engine)
    assert manifest.read_manifest(folder) is not None
    manifest_existed = []

    def reply(prompt: str, number: int) -> str:
        manifest_existed.append((folder / "manifest.json").exists())
        return "0.5"

    server.reply = reply
    evaluate_base(config, no_engine)
    assert manifest_existed
    assert not any(manifest_existed)


def test_the_manifest_has_only_a_hash_of_the_judges_address(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: "0.5"
    store_responses(config, UNREADABLE)
    text = (evaluate_base(config, no_engine) / "manifest.json").read_text()
    assert json.loads(text)["settings"]["judge_server"] == server_hash(JudgeKind.endpoint)
    assert os.environ["JUDGE_BASE_URL"] not in text


def test_the_manifest_and_the_log_have_the_judges_name_and_counts(
    server, config: RunConfig, caplog
) -> None:
    caplog.set_level("INFO")
    server.reply = lambda prompt, number: "0.5" if number % 2 else "well"
    store_responses(config, UNREADABLE)
    folder = evaluate_base(config, no_engine)
    content = manifest.read_manifest(folder)
    assert content["settings"]["judge"] == "judge-of-the-tests"
    judge = content["counts"]["judge"]
    assert judge["calls"] == len(server.bodies)
    assert judge["calls"] + judge["from_cache"] == judge["replies"]
    assert judge["unusable"] > 0
    log = caplog.text
    assert f"judge judge-of-the-tests: {judge['replies']} replies (" in log
    assert f"{judge['unusable']} unusable replies" in log


def test_the_manifest_says_that_the_judge_of_shapes_benchmarks_is_no_model(
    config: RunConfig,
) -> None:
    config.evaluate.judge = JudgeKind.shapes
    store_responses(config, UNREADABLE)
    assert manifest.read_manifest(evaluate_base(config, no_engine))["settings"]["judge"] == STAND_IN


def test_without_a_judge_a_benchmark_of_unreadable_responses_has_no_score_but_a_reason(
    config: RunConfig, caplog
) -> None:
    config.evaluate.judge = JudgeKind.none
    store_responses(config, UNREADABLE)
    scores = summary(evaluate_base(config, no_engine))
    assert all(benchmark["rules_only"] for benchmark in scores.values())
    for name in ("shapes/MMVet", "shapes/MMStar", "mean"):
        assert scores[name]["score"] is None
    assert scores["shapes/MMVet"]["reason"].startswith("MMVet needs a judge")
    # OCRBench needs no judge: a response without the gold text is wrong.
    assert scores["shapes/OCRBench"]["score"] == 0.0
    assert scores["shapes/OCRBench"]["undecided"] == 0
    assert "shapes/MMVet: no score: MMVet needs a judge" in caplog.text


def test_items_that_the_rules_could_not_decide_are_counted(config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.none
    config.evaluate.benchmarks = ["shapes/MMStar"]
    store_responses(config, "A")
    folder = RunPaths(config).responses(Arm.base)
    rows = parquet.read_rows(folder, StoredResponse)
    rows[:2] = [replace(row, response=UNREADABLE) for row in rows[:2]]
    parquet.write_part(folder, "r000-00000", rows)  # replaces the part of store_responses
    scores = summary(evaluate_base(config, no_engine))["shapes/MMStar"]
    # undecided: neither a rule nor a judge read an answer
    assert (scores["n"], scores["undecided"], scores["failed"]) == (6, 2, 2)
    assert scores["score"] is not None


def test_an_unreachable_judge_gives_a_reason_and_no_error(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_BASE_URL", "http://127.0.0.1:9/v1")  # nothing listens on port 9
    config.evaluate.judge_client.max_attempts = 1
    store_responses(config, UNREADABLE)
    folder = evaluate_base(config, no_engine)
    scores = summary(folder)
    assert scores["shapes/MMVet"]["score"] is None
    assert scores["shapes/MMVet"]["reason"] == "6 of 6 items got no score"
    assert scores["mean"]["score"] is None
    undecided_by_rules = [
        result for result in parquet.read_rows(folder, ItemResult) if result.graded_by is None
    ]
    assert all(result.score is None for result in undecided_by_rules)


def test_a_reply_that_cannot_be_stored_ends_the_run(server, config: RunConfig) -> None:
    store_responses(config, UNREADABLE)
    Path(config.output_dir).joinpath("judge").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="judge"):
        evaluate_base(config, no_engine)
    assert manifest.read_manifest(RunPaths(config).evaluation(Arm.base)) is None
