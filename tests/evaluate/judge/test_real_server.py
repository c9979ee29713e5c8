"""A judge that nobody here wrote, and whole commands with kills and ranks. Slow lane."""

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
from difftrain.evaluate.items import load_items
from difftrain.evaluate.judge.client import JudgeClient
from difftrain.pipeline import manifest, parquet
from difftrain.records import GradedBy, ItemResult
from tests.evaluate.judge.test_judging import as_stored
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and model name of `transformers serve` with the tiny model."""
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def graded(config: RunConfig) -> tuple[list[ItemResult], dict]:
    """Marks of predictions that no rule decides."""
    said = zip(load_items(config.evaluate), cycle(["hm", "~", "| a |\n| b |"]), strict=False)
    judging = JudgeClient(
        config.evaluate.judge, config.evaluate.judge_client, Path(config.output_dir) / "judge"
    )
    marks = grade.grade_all(as_stored(said), config.evaluate, judging)
    return marks, judging.counts()


def test_a_real_server_judges_through_a_faulty_proxy(
    served: tuple[str, str], proxy, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, model = served
    proxy.upstream = url
    monkeypatch.setenv("JUDGE_MODEL", model)
    judging = config.evaluate.judge_client
    judging.max_attempts, judging.max_concurrency, judging.timeout_s = 8, 2, 60
    config.evaluate.limit = 4
    config.evaluate.benchmarks = [f"shapes/{name}" for name in ("MathVista", "MMVet", "MMStar")]
    faults = ["429", None, "dropped", "500", None, None, "cut", None]
    proxy.fault = lambda number: faults[number % len(faults)]
    marks, counts = graded(config)
    print(counts)
    assert counts["failed_items"] == 0
    assert counts["stopped"] is None
    assert {"limited", "server", "lost"} <= counts["faults"].keys()
    assert counts["replies"] >= 12
    extracted = [mark for mark in marks if mark.benchmark == "shapes/MathVista"]
    assert all(mark.graded_by is GradedBy.judge for mark in extracted)
    assert all(mark.score is not None for mark in marks)
    asked = len(proxy.bodies)
    again, recounted = graded(config)
    assert again == marks
    assert len(proxy.bodies) == asked
    assert recounted["calls"] == 0
    proxy.fault = lambda number: None
    config.output_dir += "-undisturbed"
    config.evaluate.benchmarks = ["shapes/MathVista"]
    assert graded(config)[0] == extracted


SMALL = ("evaluate.limit=6", "evaluate.resamples=100", "evaluate.max_new_tokens=8")
ENDPOINT = ("evaluate.judge=endpoint", "evaluate.judge_client.backoff_s=0.01")


def command(launcher: str, folder: Path, *arguments: str) -> list[str]:
    path = ROOT / "launch" / f"{launcher}.py"
    return [sys.executable, str(path), *SMALL, *ENDPOINT, f"output_dir={folder}", *arguments]


def started(words: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def marks_of(folder: Path) -> dict[tuple[str, str], ItemResult]:
    (found,) = folder.glob("evaluate/*")
    assert manifest.read_manifest(found) is not None
    return {(mark.benchmark, mark.item_id): mark for mark in parquet.read_rows(found, ItemResult)}


def says(prompt: str, number: int) -> str:
    return f"0.{len(prompt) % 10}" if prompt.endswith("| ") else "ABYesNo"[len(prompt) % 2]


def prompts(server) -> list[tuple[str, float]]:
    return [(each["messages"][0]["content"], each["temperature"]) for each in server.bodies]


def test_a_killed_evaluation_and_two_ranks_make_no_call_twice(server, tmp_path: Path) -> None:
    def slowly(prompt: str, number: int) -> str:
        time.sleep(0.2)
        return says(prompt, number)

    server.reply = slowly
    child = started(command("evaluate", tmp_path, "evaluate.judge_client.max_concurrency=1"))
    until = time.time() + 400
    while len(server.bodies) < 6:
        assert child.poll() is None, child.communicate()[1][-3000:]
        assert time.time() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = len(server.bodies)
    assert not list(tmp_path.glob("evaluate/*/manifest.json"))
    server.reply = says
    ranks = [
        started(command("evaluate", tmp_path), RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)
    ]
    for each in ranks:
        _, told = each.communicate(timeout=500)
        assert each.returncode == 0, told[-3000:]
    asked = prompts(server)
    assert len(asked) > before
    repeated = {each for each in asked if asked.count(each) > 1 and "single-choice" not in each[0]}
    assert len(repeated) <= 1, "at most the call that was open at the kill is made again"
    found = marks_of(tmp_path)
    assert len(found) == 36
    assert all(mark.score is not None for mark in found.values())
    alone = tmp_path / "alone"
    done = started(command("evaluate", alone))
    _, told = done.communicate(timeout=500)
    assert done.returncode == 0, told[-3000:]
    assert "judge judge-of-the-tests:" in told
    assert marks_of(alone) == found
    calls = len(server.bodies)
    again = started(command("evaluate", alone))
    again.communicate(timeout=300)
    assert again.returncode == 0
    assert len(server.bodies) == calls
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert server.key.encode() not in content
            assert server.url.encode() not in content


def test_a_whole_run_by_rules_alone_states_what_is_undecided(tmp_path: Path) -> None:
    smoke = ("debug=smoke", "select.strata=[hard,medium,unsolved]", "evaluate.judge=none")
    words = [sys.executable, str(ROOT / "launch" / "train.py"), *smoke, f"output_dir={tmp_path}"]
    done = started(words)
    out, told = done.communicate(timeout=580)
    assert done.returncode == 0, told[-3000:]
    folder = Path(out.strip().splitlines()[-1].removeprefix("output: "))
    report = json.loads((folder / "report.json").read_text())
    assert report["base"]["shapes/MMVet"]["score"] is None
    assert report["means"]["base"]["score"] is None
    assert report["differences"] == {}
    text = (folder / "report.md").read_text()
    assert "helped: no mean over 6, without a score of" in text
    assert "shapes/MMVet has no score: MMVet needs a judge" in text
    assert "Scores are by rules only (evaluate.judge=none)" in text
    assert "% undecided" in text
    assert "none (rules only)" in text
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
            "ground_truth": f"\\boxed{{{item[item['answer']]}}}",
        }
        for number in range(4)
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        sys.executable, str(ROOT / "launch" / "train.py"), "debug=smoke", "data=jsonl",
        f"data.path={tmp_path / 'my.jsonl'}", f"output_dir={tmp_path / 'a'}",
        "select.strata=[easy,hard,medium,unsolved]", "data.min_pixels=3136",
        "data.max_pixels=12544",
    ]  # fmt: skip
    done = started(words)
    _, told = done.communicate(timeout=500)
    assert done.returncode == 2, told[-3000:]
    assert "4 of 4 samples to train on are in benchmarks too" in told
    assert "same image: shapes/MMStar/0" in told
    assert not list((tmp_path / "a").glob("train/*"))
    assert "Traceback" not in told
