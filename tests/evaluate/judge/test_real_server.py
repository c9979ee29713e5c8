"""Slow tests: `transformers serve` as the judge, and launchers that are killed or use two ranks.

The fixtures `server` (a fake judge server), `proxy` (in front of it) and `config` are in
conftest.py. shapes/NAME is a built-in imitation of the benchmark NAME.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from difftrain.config.run_config import RunConfig
from difftrain.evaluate import grade
from difftrain.evaluate.judge import JudgeClient
from difftrain.evaluate.loading import load_items
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult
from tests.evaluate.judge.test_judging import as_stored
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and model name of `transformers serve` with the tiny model."""
    with serving(tmp_path_factory.mktemp("served")) as url_and_model:
        yield url_and_model


def grade_items(config: RunConfig) -> tuple[list[ItemResult], dict]:
    """Grade predictions from which no rule reads an answer; returns results and judge counts."""
    predictions = zip(load_items(config.evaluate), cycle(["hm", "~", "| a |\n| b |"]), strict=False)
    judge = JudgeClient(
        config.evaluate.judge, config.evaluate.judge_client, Path(config.output_dir) / "judge"
    )
    results = grade.grade_all(as_stored(predictions), config.evaluate, judge)
    return results, judge.counts()


def test_a_real_server_judges_through_a_faulty_proxy(
    served: tuple[str, str], proxy, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = served
    proxy.upstream = url
    proxy.max_tokens = 16  # to save time: the tiny model generates until the limit
    monkeypatch.setenv("JUDGE_MODEL", model)
    judge = config.evaluate.judge_client
    judge.max_attempts, judge.max_concurrency, judge.timeout_s = 8, 2, 60
    config.evaluate.limit = 4
    config.evaluate.benchmarks = [f"shapes/{name}" for name in ("MathVista", "MMVet", "MMStar")]
    # What the proxy sends; None: no fault. "cut" is a part of a response.
    faults = ["429", None, "dropped", "500", None, None, "cut", None]
    proxy.fault = lambda number: faults[number % len(faults)]
    results, counts = grade_items(config)
    assert counts["failed_items"] == 0
    assert counts["stopped"] is None
    # The client counts 429 as limited, 500 as server, and a dropped or cut response as lost.
    assert {"limited", "server", "lost"} <= counts["faults"].keys()
    assert counts["replies"] >= 12  # four items of each of three benchmarks
    mathvista = [result for result in results if result.benchmark == "shapes/MathVista"]
    assert all(result.graded_by is GradedBy.judge for result in mathvista)
    assert all(result.score is not None for result in results)
    num_calls = len(proxy.bodies)
    second_results, second_counts = grade_items(config)
    assert second_results == results
    assert len(proxy.bodies) == num_calls
    assert second_counts["calls"] == 0
    proxy.fault = lambda number: None
    config.output_dir += "-without-faults"
    config.evaluate.benchmarks = ["shapes/MathVista"]
    assert grade_items(config)[0] == mathvista


SMALL_EVALUATION = ("evaluate.limit=6", "evaluate.resamples=100", "evaluate.max_new_tokens=8")
JUDGE_SERVER = ("evaluate.judge=endpoint", "evaluate.judge_client.backoff_s=0.01")


def command(launcher: str, folder: Path, *arguments: str) -> list[str]:
    """The command of a small run with the judge server and this output folder."""
    path = ROOT / "launch" / f"{launcher}.py"
    return [
        sys.executable,
        str(path),
        *SMALL_EVALUATION,
        *JUDGE_SERVER,
        f"output_dir={folder}",
        *arguments,
    ]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def results_of(folder: Path) -> dict[tuple[str, str], ItemResult]:
    (results,) = folder.glob("evaluate/*")
    assert manifest.read_manifest(results) is not None
    return {
        (result.benchmark, result.item_id): result
        for result in parquet.read_rows(results, ItemResult)
    }


def usable_reply(prompt: str, number: int) -> str:
    """A score for MM-Vet, whose prompt is a table that ends with an empty cell, else a letter."""
    return f"0.{len(prompt) % 10}" if prompt.endswith("| ") else "AB"[len(prompt) % 2]


def prompts_and_temperatures(server) -> list[tuple[str, float]]:
    return [(body["messages"][0]["content"], body["temperature"]) for body in server.bodies]


def test_no_call_is_repeated_after_a_kill_or_by_a_second_rank(server, tmp_path: Path) -> None:
    def slow_reply(prompt: str, number: int) -> str:
        time.sleep(0.2)  # seconds, so that the run is killed during a call
        return usable_reply(prompt, number)

    server.reply = slow_reply
    child = start(command("evaluate", tmp_path, "evaluate.judge_client.max_concurrency=1"))
    deadline = time.time() + 400
    while len(server.bodies) < 6:
        assert child.poll() is None, child.communicate()[1][-3000:]
        assert time.time() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    num_calls_before = len(server.bodies)
    assert not list(tmp_path.glob("evaluate/*/manifest.json"))
    server.reply = usable_reply
    ranks = [
        start(command("evaluate", tmp_path), RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)
    ]
    for process in ranks:
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr[-3000:]
    calls = prompts_and_temperatures(server)
    assert len(calls) > num_calls_before
    # For multiple choice (a prompt with `single-choice`), the reference harness repeats a call if
    # the reply is unusable.
    repeated = {call for call in calls if calls.count(call) > 1 and "single-choice" not in call[0]}
    assert len(repeated) <= 1, "only the call that was open at the kill may be repeated"
    results = results_of(tmp_path)
    assert len(results) == 36  # six items of each of six benchmarks
    assert all(result.score is not None for result in results.values())
    folder = tmp_path / "uninterrupted"
    process = start(command("evaluate", folder))
    _, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr[-3000:]
    assert "judge judge-of-the-tests:" in stderr
    assert results_of(folder) == results
    num_calls = len(server.bodies)
    second = start(command("evaluate", folder))
    second.communicate(timeout=300)
    assert second.returncode == 0
    assert len(server.bodies) == num_calls
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert server.key.encode() not in content
            assert server.url.encode() not in content


def test_the_report_of_a_run_without_a_judge_says_which_scores_are_missing_and_why(
    tmp_path: Path,
) -> None:
    # The strata are the difficulty levels whose samples are trained on.
    smoke = ("debug=smoke", "select.strata=[hard,medium,unsolved]", "evaluate.judge=none")
    arguments = [
        sys.executable,
        str(ROOT / "launch" / "train.py"),
        *smoke,
        f"output_dir={tmp_path}",
    ]
    process = start(arguments)
    out, stderr = process.communicate(timeout=580)
    assert process.returncode == 0, stderr[-3000:]
    folder = Path(out.strip().splitlines()[-1].removeprefix("output: "))
    report = json.loads((folder / "report.json").read_text())
    assert report["base"]["shapes/MMVet"]["score"] is None
    assert report["means"]["base"]["score"] is None
    assert report["differences"] == {}
    text = (folder / "report.md").read_text()
    assert "helped: no mean over 6 benchmarks, because there is no score of" in text
    assert "shapes/MMVet has no score: MMVet needs a judge" in text
    assert "Scores are by rules only (evaluate.judge=none)" in text
    assert "% undecided" in text
    assert "none (rules only)" in text
    # Training samples are compared with the built-in benchmarks, not with absent official ones.
    assert "were not compared with" in text
    assert "none is in both" in text
    assert "% undecided" in (folder / "report.html").read_text()


def test_training_on_a_benchmark_item_ends_with_code_2_before_the_first_step(
    tmp_path: Path,
) -> None:
    from difftrain.shapes import benchmarks

    item = benchmarks.items("MMStar", 3)[0]
    (tmp_path / "item.png").write_bytes(item["image"])
    rows = [
        {
            "image_paths": ["item.png"],
            "prompt": f"<image>{item['question']} ({number})",
            "ground_truth": f"\\boxed{{{item[item['answer']]}}}",  # text of the gold option
        }
        for number in range(4)
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        sys.executable, str(ROOT / "launch" / "train.py"), "debug=smoke", "data=jsonl",
        f"data.path={tmp_path / 'my.jsonl'}", f"output_dir={tmp_path / 'a'}",
        "select.strata=[easy,hard,medium,unsolved]", "data.min_pixels=3136",
        "data.max_pixels=12544",
    ]  # fmt: skip
    process = start(arguments)
    _, stderr = process.communicate(timeout=500)
    assert process.returncode == 2, stderr[-3000:]
    assert "4 of 4 samples to train on are in benchmarks too" in stderr
    assert "same image: shapes/MMStar/0" in stderr
    assert not list((tmp_path / "a").glob("train/*"))
    assert "Traceback" not in stderr
