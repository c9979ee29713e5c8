"""Measure how many responses one core grades in a second.

    python benchmarks/grading_speed.py [CASES.jsonl] [--json]

* plain: short answers of every kind, as a model writes most of them.
* cases: the number cases of a file with the fields {kind, question, gold, options, response},
  which need math-verify more often; by default a few expressions.

Each response is graded once, in this process, as a worker of the reward does it: the first pass
over the cases parses every gold answer, the second finds them parsed, as for a group's further
responses. `over_limit` counts grades that took longer than grpo.grading_timeout_s. Writes
benchmarks/results/grading_speed.json; with --json the last line is its content.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difftrain import grade
from difftrain.config.train import GrpoConfig
from difftrain.grade import math, pool
from difftrain.pipeline import manifest
from difftrain.records import AnswerKind, Sample, TaskSet

PLAIN = [
    ("choice", "B", ("red", "blue", "green"), ("B", "(C)", "B. blue", "the answer is A")),
    ("count", "7", (), ("7", "There are 7 shapes.", "8", "seven")),
    ("number", "12.5", (), ("12.5", "25/2", "12.5 cm", "13")),
    ("text", "Main Street", (), ("Main Street", "main street.", "Mane Street", "the street")),
]
EXPRESSIONS = [
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{\pi}{2}", r"\pi/2."),
    ("(x+1)^2", "x^2+2x+1"),
    ("x > 3", r"(3, \infty)"),
    ("1, 2", "x = 2 or x = 1"),
    ("y = x + 1", "y = x - 1"),
]
RESULT = Path(__file__).parent / "results" / "grading_speed.json"
REPEATS = 250  # of the 16 plain answers


def sample_of(kind: str, gold: str, options: Sequence[str], question: str = "") -> Sample:
    """A sample with the fields that graders use."""
    return Sample(
        sample_id="0" * 16,
        images=(),
        question=question,
        answer=gold,
        answer_kind=AnswerKind(kind),
        options=tuple(options),
        task="",
        task_set=TaskSet.reasoning,
        source="",
    )


def plain_pairs() -> list[tuple[str, Sample]]:
    """Responses with plain answers, and their samples."""
    return [
        (f"<think>I look.</think><answer>{answer}</answer>", sample_of(kind, gold, options))
        for _ in range(REPEATS)
        for kind, gold, options, answers in PLAIN
        for answer in answers
    ]


def case_pairs(path: Path | None) -> list[tuple[str, Sample]]:
    """The number cases of a file, or EXPRESSIONS."""
    if path is None:
        return [
            (f"<answer>{answer}</answer>", sample_of("number", gold, ()))
            for gold, answer in EXPRESSIONS
        ]
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        (row["response"], sample_of("number", row["gold"], row["options"], row["question"]))
        for row in rows
        if row["kind"] == "number"
    ]


def measure(pairs: Sequence[tuple[str, Sample]], limit_s: float) -> tuple[float, int]:
    """Responses graded per second, and how many took longer than the limit."""
    durations = []
    for response, sample in pairs:
        start = time.process_time()
        grade.grade(response, sample)
        durations.append(time.process_time() - start)
    return len(pairs) / sum(durations), sum(duration > limit_s for duration in durations)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pool._in_worker = True  # math-verify runs in this process, as in a worker of the reward
    math.load_math_verify()
    limit_s = GrpoConfig().grading_timeout_s
    plain, plain_over = measure(plain_pairs(), limit_s)
    pairs = case_pairs(options.cases)
    first, first_over = measure(pairs, limit_s)
    again, again_over = measure(pairs, limit_s)
    result: dict[str, Any] = {
        "plain_per_s": round(plain),
        "cases_per_s": round(first),
        "cases_again_per_s": round(again),
        "cases": len(pairs),
        "over_limit": plain_over + first_over + again_over,
    }
    print(f"{plain:.0f} plain answers a second and core")
    print(f"{first:.0f} of {len(pairs)} number cases a second, {again:.0f} when seen again")
    print(f"{result['over_limit']} grades took longer than {limit_s:g} s")
    stamped = {**result, "versions": manifest.versions()}
    RESULT.write_text(json.dumps(stamped, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
