"""studies/harness_parity.py scores a predictions file with our scorers and, if there, VLMEvalKit.

Most tests use no VLMEvalKit. Some use a package of the same name and entry point, written here,
because VLMEvalKit needs libraries that difftrain does not.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import harness_parity
import pytest

from difftrain.config.evaluate import BUILT_IN, EvaluateConfig
from difftrain.evaluate import write_results
from difftrain.evaluate.generate import StoredResponse
from difftrain.evaluate.grade import grade_all
from difftrain.evaluate.judge import JudgeClient
from difftrain.evaluate.loading import BenchmarkItem, load_items
from difftrain.pipeline import manifest
from difftrain.records import ItemResult

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """What a run of the study returned and printed."""

    returncode: int
    stdout: str
    stderr: str


Parity = Callable[..., Result]


@pytest.fixture
def parity(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Parity:
    """A function that runs the study; `packages` is a folder that may have VLMEvalKit."""
    monkeypatch.delenv("JUDGE_BASE_URL", raising=False)
    monkeypatch.setenv("JUDGE_MODEL", "x")  # the study sets it if it is not set

    def run(*arguments: str | Path, packages: Path | None = None) -> Result:
        monkeypatch.setenv("PYTHONPATH", str(packages or ""))
        code = harness_parity.main([*map(str, arguments)])
        return Result(code, *capsys.readouterr())

    return run


def stored(item: BenchmarkItem, number: int) -> StoredResponse:
    """A response to the item: its gold answer in different forms, something else, or nothing."""
    gold = str(item.row.get("answer_option") or item.row["answer"])
    texts = (
        f"<think>It is clear.</think><answer>{gold}</answer>",
        f"The answer is {gold}.",
        f"<answer>\\boxed{{{gold}}}</answer>",
        "<answer>B</answer>",
        "I cannot tell.",
        "",
    )
    return StoredResponse(
        benchmark=item.benchmark, item_id=item.key[1], response=texts[number % len(texts)],
        prompt_hash="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ItemResult]]:
    """The folder and the results of an evaluation of all built-in benchmarks, 18 items of each.

    Its responses are invented; grading and writing are those of `difftrain evaluate`.
    """
    folder = tmp_path_factory.mktemp("evaluated")
    config = EvaluateConfig(limit=18)
    items = load_items(config)
    client = JudgeClient(config.judge, config.judge_client, folder / "replies")
    pairs = [(item, stored(item, number)) for number, item in enumerate(items)]
    results = grade_all(pairs, config, client)
    values = write_results.scores_md_values(config, {"engines": []}, "float32", (3136, 12544))
    write_results.write(folder, "tiny", items, results, config, values)
    return folder, results


@pytest.mark.parametrize("benchmark", BUILT_IN)
def test_our_scores_of_a_predictions_file_are_those_that_evaluate_reported(
    parity: Parity, evaluated: tuple[Path, list[ItemResult]], benchmark: str
) -> None:
    folder, results = evaluated
    file = folder / "predictions" / write_results.prediction_file("tiny", benchmark)
    done = parity(file, "--benchmark", benchmark)
    assert done.returncode == 0, done.stderr
    *lines, summary = done.stdout.splitlines()
    reported = [result.score for result in results if result.benchmark == benchmark]
    assert [float(line.split("ours ")[1]) for line in lines] == pytest.approx(reported)
    assert 0 < sum(reported) < len(reported)  # items of both kinds
    score = manifest.read_json(folder / "summary.json")[benchmark]["score"]
    assert summary == f"{benchmark}: 18 items; ours {score:.4f}; not compared"
    assert f"VLMEvalKit does not have {benchmark}, so only our scores are printed" in done.stderr


HEADER = ("index", "question", "A", "B", "C", "D", "answer", "category", "l2_category")
PREDICTIONS = {"1": "A", "2": "The answer is B.", "3": "It is C", "4": "I do not know."}
"""By index the predictions for items of MMStar, whose gold answers are all B."""


@pytest.fixture
def mmstar_file(tmp_path: Path) -> Path:
    """A predictions file of four items of MMStar."""
    rows = [
        [index, "Which?", "red", "blue", "green", "gray", "B", "logic", "x", prediction]
        for index, prediction in PREDICTIONS.items()
    ]
    path = tmp_path / "model_MMStar.tsv"
    lines = ["\t".join(row) for row in ([*HEADER, "prediction"], *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    """A folder with a package vlmeval: a letter B is right, and so is what $ALSO_RIGHT contains."""
    package = tmp_path / "packages" / "vlmeval"
    (package / "dataset" / "utils").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0'\n")
    (package / "dataset" / "utils" / "__init__.py").write_text("")
    post_check = "def post_check(line, prefetch=False):\n    return line['res'] == 'B'\n"
    (package / "dataset" / "utils" / "mathvista.py").write_text(post_check)
    code = """
        import os
        import pandas as pd

        class Dataset:
            def __init__(self, name):
                self.name = name

            def evaluate(self, eval_file, **judge_kwargs):
                table = pd.read_csv(eval_file, sep="\\t")
                if self.name == "OCRBench":
                    assert len(table) == 1
                    return {"Final Score": int("B" in table["prediction"][0])}
                assert judge_kwargs["model"] == "exact_matching", "needs a working judge"
                print("noise on stdout")
                right = os.environ.get("ALSO_RIGHT", "none")
                hit = [int("B" in text or right in text) for text in table["prediction"]]
                table["hit" if self.name == "MMStar" else "res"] = hit
                if self.name == "MathVista_MINI":
                    table["res"] = ["B" if value else "Z" for value in hit]
                file = eval_file.replace(".tsv", "_exact_matching_result.tsv")
                table.to_csv(file, sep="\\t", index=False)

        def build_dataset(name):
            if "CANNOT_DOWNLOAD" in os.environ:
                raise OSError("cannot download " + os.environ["CANNOT_DOWNLOAD"])
            return Dataset(name)
    """
    (package / "dataset" / "__init__.py").write_text(textwrap.dedent(code))
    return package.parent


def test_without_the_harness_one_sentence_says_how_to_get_it(
    parity: Parity, mmstar_file: Path
) -> None:
    done = parity(mmstar_file, "--benchmark", "MMStar")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "1\tours 0", "2\tours 1", "3\tours 0", "4\tours 0",
        "MMStar: 4 items; ours 0.2500; not compared",
    ]  # fmt: skip
    assert len(done.stderr.splitlines()) == 1
    assert "VLMEvalKit is not installed" in done.stderr
    assert "ENV/bin/pip install -e VLMEvalKit" in done.stderr
    assert parity(mmstar_file, "--benchmark", "MMStar", "--require-harness").returncode == 1


def test_equal_scores_give_exit_code_0_and_a_line_with_the_counts(
    parity: Parity, mmstar_file: Path, harness: Path
) -> None:
    done = parity(mmstar_file, "--benchmark", "MMStar", packages=harness)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "MMStar: 4 items; ours 0.2500, VLMEvalKit 0.2500; 0 items differ\n"


def test_items_with_different_scores_are_printed_one_by_one(
    parity: Parity, mmstar_file: Path, harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALSO_RIGHT", "It is C")
    done = parity(mmstar_file, "--benchmark", "MMStar", packages=harness)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "3\tours 0\tVLMEvalKit 1\t'It is C'",
        "MMStar: 4 items; ours 0.2500, VLMEvalKit 0.5000; 1 item differs",
    ]


def test_benchmarks_whose_files_have_no_hit_are_compared_item_by_item_too(
    parity: Parity, tmp_path: Path, harness: Path
) -> None:
    ocrbench = tmp_path / "model_OCRBench.tsv"
    category = "Regular Text Recognition"
    ocrbench.write_text(
        "index\tquestion\tanswer\tcategory\tprediction\n"
        f"0\tRead.\t['B']\t{category}\tA B\n1\tRead.\t['x']\t{category}\tB\n"
    )
    done = parity(ocrbench, "--benchmark", "OCRBench", packages=harness)
    assert done.stdout.splitlines() == [
        "1\tours 0\tVLMEvalKit 1\t'B'",
        "OCRBench: 2 items; ours 0.5000, VLMEvalKit 1.0000; 1 item differs",
    ]
    mathvista = tmp_path / "model_MathVista_MINI.tsv"
    names = "index question question_type answer_type choices answer answer_option task skills"
    cells = ["7", "Which?", "multi_choice", "text", "['x', 'y']", "y", "B", "vqa", "['logic']"]
    lines = [[*names.split(), "prediction"], [*cells, "B"]]
    mathvista.write_text("".join("\t".join(line) + "\n" for line in lines))
    done = parity(mathvista, "--benchmark", "MathVista", packages=harness)
    assert done.stdout == "MathVista: 1 items; ours 1.0000, VLMEvalKit 1.0000; 0 items differ\n"


def test_an_error_of_the_harness_is_printed_with_our_scores(
    parity: Parity, mmstar_file: Path, harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANNOT_DOWNLOAD", "MMStar.tsv")
    done = parity(mmstar_file, "--benchmark", "MMStar", packages=harness)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "MMStar: 4 items; ours 0.2500; not compared"
    assert done.stderr == "VLMEvalKit failed: OSError: cannot download MMStar.tsv\n"


def test_the_script_runs_from_the_command_line(mmstar_file: Path) -> None:
    command = [sys.executable, str(ROOT / "studies" / "harness_parity.py"), str(mmstar_file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--benchmark", "MMStar", "--require-harness"],
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.endswith("MMStar: 4 items; ours 0.2500; not compared\n")


def test_bad_input_ends_with_exit_code_2_and_the_reason(
    parity: Parity, mmstar_file: Path, tmp_path: Path
) -> None:
    def message(file: Path, *arguments: str) -> str:
        done = parity(file, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "no such file" in message(tmp_path / "none.tsv", "--benchmark", "MMStar")
    assert "must be one of: MathVista" in message(mmstar_file, "--benchmark", "MMStr")
    assert "which MathVista needs" in message(mmstar_file, "--benchmark", "MathVista")
    judged = ("--benchmark", "MMStar", "--judge", "gpt-4o-mini")
    assert "needs JUDGE_BASE_URL in the environment" in message(mmstar_file, *judged)
    text = mmstar_file.read_text()
    mmstar_file.write_text(text.replace("2\tWhich?", "1\tWhich?"))
    assert "every row needs an index of its own" in message(mmstar_file, "--benchmark", "MMStar")
    mmstar_file.write_text(text.replace("prediction", "response"))
    assert "has no column prediction" in message(mmstar_file, "--benchmark", "MMStar")
