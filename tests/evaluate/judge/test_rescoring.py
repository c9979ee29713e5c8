"""Responses are kept apart from marks: only a missing response asks the model."""

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

WORDY = "~ " * 40


def evaluate_base(config: RunConfig, make: Callable[[int, int], Engine]) -> Path:
    """Run the evaluation of the base as the recipe does; returns the marks' folder."""
    paths = RunPaths(config)
    folders = grade.EvaluationFolders(
        paths.responses(Arm.base), paths.evaluation(Arm.base), paths.judge_replies
    )
    pixels = config.data.min_pixels, config.data.max_pixels
    grade.evaluate(make, folders, "tiny", config.evaluate, config.model, pixels, World())
    return folders.results


def no_engine(*_pixels: int) -> Engine:
    """What must not be called: a second pass has every response already."""
    raise AssertionError("the model was asked again")


def store_responses(config: RunConfig, text: str) -> None:
    """Keep these words as the base's response to every item."""
    rows = [
        StoredResponse(benchmark=name, item_id=item_id, prompt_hash=digest, response=text)
        for name, item_id, digest in map(response_key, load_items(config.evaluate))
    ]
    parquet.write_part(RunPaths(config).responses(Arm.base), "r000-00000", rows)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_other_rules_and_another_judge_ask_no_model(server, config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.shapes
    config.evaluate.limit = 3
    store_responses(config, "<answer>A</answer>")
    first = evaluate_base(config, no_engine)
    results = parquet.read_rows(first, ItemResult)
    assert len(results) == 18
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


def test_what_changes_no_mark_changes_no_folder(config: RunConfig) -> None:
    before = RunPaths(config).evaluation(Arm.base), RunPaths(config).responses(Arm.base)
    config.evaluate.judge_client.max_concurrency = 3
    config.evaluate.judge_client.max_calls = 5
    config.evaluate.contamination = ContaminationPolicy.warn
    assert (RunPaths(config).evaluation(Arm.base), RunPaths(config).responses(Arm.base)) == before


def test_another_prompt_is_another_response(config: RunConfig) -> None:
    before = RunPaths(config).responses(Arm.base)
    config.evaluate.system = SystemPrompt.none
    assert RunPaths(config).responses(Arm.base) != before


def test_another_judge_model_is_another_folder_of_marks(
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
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_more_items_ask_only_for_those_that_are_new(tiny: LoadedModel, config: RunConfig) -> None:
    def in_process(*_: int) -> Engine:
        return HfEngine(tiny, config.model)

    config.evaluate.judge = JudgeKind.shapes
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMStar"], 2
    evaluate_base(config, in_process)
    config.evaluate.benchmarks, config.evaluate.limit = ["shapes/MMMU", "shapes/MMStar"], 3
    evaluate_base(config, in_process)
    rows = parquet.read_rows(RunPaths(config).responses(Arm.base), StoredResponse)
    assert len(rows) == len({(row.benchmark, row.item_id) for row in rows}) == 6


def test_an_item_whose_picture_or_words_changed_is_asked_again(config: RunConfig) -> None:
    item = load_items(config.evaluate)[0]
    for column, other in (("image", b"another picture"), ("question", "another question")):
        changed = replace(item, row={**item.row, column: other})
        assert changed.key == item.key
        assert response_key(changed) != response_key(item)
    store_responses(config, "A")
    store = ResponseStore(RunPaths(config).responses(Arm.base))
    keys = [response_key(item), response_key(changed)]
    assert store.missing(keys) == {response_key(changed)}


def test_a_second_run_makes_no_call_and_changes_no_file(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: "0.5"
    store_responses(config, WORDY)
    folder = evaluate_base(config, no_engine)
    made_manifest, num_calls = manifest.read_manifest(folder), len(server.bodies)
    assert num_calls > 6
    assert evaluate_base(config, no_engine) == folder
    assert manifest.read_manifest(folder) == made_manifest
    for path in (*parquet.parts(folder), folder / "manifest.json", folder / "summary.json"):
        path.unlink()
    before = made_manifest["counts"]["judge"]["replies"]
    evaluate_base(config, no_engine)
    assert len(server.bodies) == num_calls
    assert manifest.read_manifest(folder)["counts"]["judge"]["from_cache"] == before


def test_a_mark_whose_judge_failed_is_asked_again_by_the_next_run(
    server, config: RunConfig
) -> None:
    server.reply = lambda prompt, number: "A" if number % 3 else (400, b"", {})
    store_responses(config, WORDY)
    folder = evaluate_base(config, no_engine)
    failed = [result for result in parquet.read_rows(folder, ItemResult) if result.score is None]
    made_manifest = manifest.read_manifest(folder)["counts"]
    assert made_manifest["unscored"] == made_manifest["judge"]["failed_items"] == len(failed) > 3
    num_calls = len(server.bodies)
    server.reply = lambda prompt, number: "0.5" if prompt.endswith("| ") else "A"
    assert evaluate_base(config, no_engine) == folder
    assert len(server.bodies) > num_calls
    results = parquet.read_rows(folder, ItemResult)
    assert len(results) == 36
    assert all(result.score is not None for result in results)
    assert manifest.read_manifest(folder)["counts"]["unscored"] == 0
    assert manifest.read_manifest(folder)["counts"]["judge"]["from_cache"] > 0


def test_marks_are_unfinished_while_failed_items_are_asked_again(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: (400, b"", {})
    store_responses(config, WORDY)
    folder = evaluate_base(config, no_engine)
    assert manifest.read_manifest(folder) is not None
    seen = []

    def reply(prompt: str, number: int) -> str:
        seen.append((folder / "manifest.json").exists())
        return "0.5"

    server.reply = reply
    evaluate_base(config, no_engine)
    assert seen
    assert not any(seen)


def test_the_judges_server_is_in_made_json_as_a_hash_alone(server, config: RunConfig) -> None:
    server.reply = lambda prompt, number: "0.5"
    store_responses(config, WORDY)
    made_manifest = evaluate_base(config, no_engine) / "manifest.json"
    log = json.loads(made_manifest.read_text())["settings"]["judge_server"]
    assert log == server_hash(JudgeKind.endpoint)
    assert os.environ["JUDGE_BASE_URL"] not in made_manifest.read_text()


def test_counts_and_judge_stand_beside_the_score(server, config: RunConfig, caplog) -> None:
    caplog.set_level("INFO")
    server.reply = lambda prompt, number: "0.5" if number % 2 else "well"
    store_responses(config, WORDY)
    folder = evaluate_base(config, no_engine)
    made_manifest = manifest.read_manifest(folder)
    assert made_manifest["settings"]["judge"] == "judge-of-the-tests"
    assert "judging" not in made_manifest["settings"]
    judge = made_manifest["counts"]["judge"]
    assert judge["calls"] == len(server.bodies)
    assert judge["calls"] + judge["from_cache"] == judge["replies"]
    assert judge["unusable"] > 0
    log = caplog.text
    assert f"judge judge-of-the-tests: {judge['replies']} replies (" in log
    assert f"{judge['unusable']} unusable replies" in log


def test_the_stand_in_is_named_as_such(config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.shapes
    store_responses(config, WORDY)
    assert manifest.read_manifest(evaluate_base(config, no_engine))["settings"]["judge"] == STAND_IN


def test_rules_alone_give_their_share_of_undecided_items_and_mmvet_no_score(
    config: RunConfig, caplog
) -> None:
    config.evaluate.judge = JudgeKind.none
    store_responses(config, WORDY)
    scores = summary(evaluate_base(config, no_engine))
    assert all(benchmark["rules_only"] for benchmark in scores.values())
    for name in ("shapes/MMVet", "shapes/MMStar", "mean"):
        assert scores[name]["score"] is None
    assert scores["shapes/MMVet"]["reason"].startswith("MMVet needs a judge")
    assert scores["shapes/OCRBench"]["score"] == 0.0
    assert scores["shapes/OCRBench"]["undecided"] == 0
    assert "shapes/MMVet: no score: MMVet needs a judge" in caplog.text


def test_rules_alone_count_what_they_could_not_decide(config: RunConfig) -> None:
    config.evaluate.judge = JudgeKind.none
    config.evaluate.benchmarks = ["shapes/MMStar"]
    store_responses(config, "A")
    folder = RunPaths(config).responses(Arm.base)
    rows = parquet.read_rows(folder, StoredResponse)
    rows[:2] = [replace(row, response=WORDY) for row in rows[:2]]
    parquet.write_part(folder, "r000-00000", rows)
    scores = summary(evaluate_base(config, no_engine))["shapes/MMStar"]
    assert (scores["n"], scores["undecided"], scores["failed"]) == (6, 2, 2)
    assert scores["score"] is not None


def test_a_dead_judge_ends_in_words_and_not_in_a_crash(
    server, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_BASE_URL", "http://127.0.0.1:9/v1")
    config.evaluate.judge_client.max_attempts = 1
    store_responses(config, WORDY)
    folder = evaluate_base(config, no_engine)
    scores = summary(folder)
    assert scores["shapes/MMVet"]["score"] is None
    assert scores["shapes/MMVet"]["reason"] == "6 of 6 items got no score"
    assert scores["mean"]["score"] is None
    unjudged = [
        result for result in parquet.read_rows(folder, ItemResult) if result.graded_by is None
    ]
    assert all(result.score is None for result in unjudged)


def test_a_full_disk_ends_the_run_and_is_not_taken_for_a_judge(server, config: RunConfig) -> None:
    store_responses(config, WORDY)
    Path(config.output_dir).joinpath("judge").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="judge"):
        evaluate_base(config, no_engine)
    assert manifest.read_manifest(RunPaths(config).evaluation(Arm.base)) is None
