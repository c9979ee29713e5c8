"""Do our scorers give the scores of VLMEvalKit, the reference harness, on one predictions file?

    python studies/harness_parity.py PREDICTIONS.tsv --benchmark NAME
        [--harness-python ENV/bin/python] [--judge MODEL] [--rules 2025-11] [--require-harness]

PREDICTIONS.tsv has the harness's columns and `prediction`: a file that `difftrain evaluate` writes
into its folder predictions/, or the harness's own (PRED_FORMAT=tsv). NAME is a benchmark as in
evaluate.benchmarks. Prints each item whose scores differ, then one line with the counts.

VLMEvalKit needs other versions of many libraries, so give it an environment of its own:

    git clone https://github.com/open-compass/VLMEvalKit
    git -C VLMEvalKit checkout 19c0e386     # the rules 2025-11; e8e78f05 has those of 2026-08
    python -m venv ENV && ENV/bin/pip install -e VLMEvalKit

Without VLMEvalKit, and for shapes/ benchmarks, which it does not have, only our scores are printed.
It downloads a benchmark's items, so the comparison needs network the first time.

--judge: without it, only rules score (shapes/ benchmarks have a stand-in for the judge). VLMEvalKit
scores no single item of MathVista, MMVet, MathVerse, LogicVista and WeMath without a judge, and for
the last two it accepts only gpt-4-0125, gpt-4-turbo and gpt-4o-mini. With MODEL, VLMEvalKit calls
it as its own settings say (OPENAI_API_KEY, OPENAI_API_BASE) and we call the server at
JUDGE_BASE_URL; two calls of one judge may give different replies, so that not every difference is
one of the scorers.

Exit codes: 0 all scores are equal, or only ours were printed; 1 some differ, or VLMEvalKit failed,
or with --require-harness it is not there; 2 bad input.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from difftrain.config import judge as judge_config
from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.judge import JudgeClientConfig, JudgeKind
from difftrain.evaluate import COT_VARIANTS, HARNESS_NAMES, benchmark_named, grade_prediction
from difftrain.evaluate.harness import RULES, configured_rules
from difftrain.evaluate.judge import JudgeClient

HARNESS_SCRIPT = Path(__file__).with_name("harness_scores.py")
HOW_TO_INSTALL = (
    "VLMEvalKit is not installed for {python}, so only our scores are printed; to compare, install "
    "it in an environment of its own (git clone https://github.com/open-compass/VLMEvalKit; "
    "python -m venv ENV; ENV/bin/pip install -e VLMEvalKit) and pass "
    "--harness-python ENV/bin/python"
)
NOT_INSTALLED = 3  # exit code of HARNESS_SCRIPT
MAX_TEXT = 60  # characters of a prediction in a printed line


class BadInputError(ValueError):
    """The predictions file or an argument cannot be used."""


class HarnessNotInstalledError(RuntimeError):
    """The given Python cannot import VLMEvalKit."""


class HarnessFailedError(RuntimeError):
    """VLMEvalKit raised an error."""


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One line of the predictions file with our score (None: the judge failed)."""

    index: str
    prediction: str
    score: float | None


def read_predictions(path: Path, benchmark: str) -> list[dict[str, str]]:
    """The rows of a predictions file, empty cells left out. Raises BadInputError.

    The file needs the columns of the benchmark's items, but not the image.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: there is no such file")
    if path.suffix != ".tsv":
        raise BadInputError(
            f"{path}: must be a .tsv file (VLMEvalKit writes it with PRED_FORMAT=tsv)"
        )
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t")
        required = {*benchmark_named(benchmark).tsv_columns, "index", "prediction"} - {"image"}
        if missing := required - {*(reader.fieldnames or ())}:
            names = ", ".join(sorted(missing))
            raise BadInputError(f"{path}: has no column {names}, which {benchmark} needs")
        rows = [{name: cell for name, cell in row.items() if name and cell} for row in reader]
    indices = [row.get("index") for row in rows]
    if not rows or None in indices or len({*indices}) < len(rows):
        raise BadInputError(f"{path}: every row needs an index of its own")
    return rows


def our_scores(
    rows: Sequence[Mapping[str, str]], benchmark: str, judge: JudgeKind, rules: str
) -> list[ScoredItem]:
    """Our score of each row. Raises BadInputError for rows that are not of this benchmark."""
    # A TSV file has no formulas; the harness's usual XLSX file computes texts that begin with "=".
    harness_rules = replace(configured_rules(EvaluateConfig(rules=rules)), formulas=False)
    items = []
    with tempfile.TemporaryDirectory() as cache:
        client = JudgeClient(judge, JudgeClientConfig(), Path(cache))
        try:
            for row in rows:
                item = {name: cell for name, cell in row.items() if name != "prediction"}
                prediction = row.get("prediction", "")
                item_judge = client.for_item(benchmark, rules)
                try:
                    grade = grade_prediction(benchmark, prediction, item, item_judge, harness_rules)
                except (ValueError, LookupError, TypeError, SyntaxError) as error:
                    raise BadInputError(
                        f"item {row['index']} cannot be graded as {benchmark}: {error}"
                    ) from error
                items.append(ScoredItem(row["index"], prediction, grade.score))
        finally:
            client.close()
    return items


def harness_scores(python: str, path: Path, benchmark: str, judge: str) -> dict[str, float | None]:
    """VLMEvalKit's score by index, from a process of this Python; None instead of NaN.

    Raises HarnessNotInstalledError or HarnessFailedError.
    """
    name = benchmark_named(benchmark).name
    dataset = next((theirs for theirs, ours in HARNESS_NAMES.items() if ours == name), name)
    if benchmark in {*COT_VARIANTS, *HARNESS_NAMES}:  # the harness's own name of a variant
        dataset = benchmark
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.json"
        arguments = [python, HARNESS_SCRIPT, path.absolute(), dataset, judge, output]
        try:
            done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
        except OSError as error:
            raise BadInputError(f"--harness-python={python}: {error.strerror}") from error
        if done.returncode == NOT_INSTALLED:
            raise HarnessNotInstalledError(HOW_TO_INSTALL.format(python=python))
        if done.returncode or not output.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise HarnessFailedError(f"VLMEvalKit failed: {lines[-1] if lines else 'no message'}")
        scores = json.loads(output.read_text())["scores"]
    return {index: None if math.isnan(score) else score for index, score in scores.items()}


def mean(scores: Sequence[float | None]) -> str:
    """The mean of the scores that exist, with four decimals."""
    known = [score for score in scores if score is not None]
    return f"{sum(known) / len(known):.4f}" if known else "none"


def show(score: float | None) -> str:
    """A score as text; `none` if there is none."""
    return "none" if score is None else f"{score:g}"


def comparison_lines(
    items: Sequence[ScoredItem], theirs: Mapping[str, float | None]
) -> Iterator[str]:
    """A line for each item that only one side scores or whose scores differ by more than 1e-6."""
    for item in items:
        their_score = theirs.get(item.index)
        if item.score is None or their_score is None:
            equal = item.score == their_score and item.index in theirs
        else:
            equal = abs(item.score - their_score) <= 1e-6
        if not equal:
            their_text = show(their_score) if item.index in theirs else "did not score it"
            text = repr(item.prediction)
            text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
            yield f"{item.index}\tours {show(item.score)}\tVLMEvalKit {their_text}\t{text}"


def parse_arguments(command_line: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line. Raises BadInputError for wrong values."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--harness-python", default=sys.executable)
    parser.add_argument("--judge", metavar="MODEL")
    parser.add_argument("--rules", default="2025-11", choices=[*RULES][1:])
    parser.add_argument("--require-harness", action="store_true")
    arguments = parser.parse_args(command_line)
    try:
        benchmark_named(arguments.benchmark)
    except ValueError as error:
        raise BadInputError(f"--{error}") from error
    if arguments.judge is not None:
        os.environ.setdefault(judge_config.MODEL, arguments.judge)
        if problems := list(judge_config.environment_problems()):
            raise BadInputError(f"--judge={arguments.judge}: {'; '.join(problems)}")
    return arguments


def main(command_line: Sequence[str]) -> int:
    """Compare, print the result, and return the exit code."""
    try:
        arguments = parse_arguments(command_line)
        name, judge = arguments.benchmark, arguments.judge
        kind = JudgeKind.endpoint if judge else JudgeKind.shapes
        items = our_scores(
            read_predictions(arguments.predictions, name), name, kind, arguments.rules
        )
        ours = f"{name}: {len(items)} items; ours {mean([item.score for item in items])}"
        try:
            if name.startswith("shapes/"):
                raise HarnessNotInstalledError(
                    f"VLMEvalKit does not have {name}, so only our scores are printed"
                )
            judge_name = judge or "exact_matching"
            python = arguments.harness_python
            theirs = harness_scores(python, arguments.predictions, name, judge_name)
        except (HarnessNotInstalledError, HarnessFailedError) as error:
            for item in items:
                print(f"{item.index}\tours {show(item.score)}")
            print(f"{ours}; not compared")
            print(error, file=sys.stderr)
            has_failed = isinstance(error, HarnessFailedError)
            return int(has_failed or arguments.require_harness)
    except BadInputError as error:
        print(error, file=sys.stderr)
        return 2
    lines = list(comparison_lines(items, theirs))
    print(*lines, sep="\n", end="\n" if lines else "")
    differ = "1 item differs" if len(lines) == 1 else f"{len(lines)} items differ"
    print(f"{ours}, VLMEvalKit {mean([*theirs.values()])}; {differ}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
