"""Reads adversarial.tsv: answers that try to trick the graders, and unusual correct answers.

The columns are answer kind, gold answer, options (separated by |), answer, verdict, reason. The
gold answer CATS means the two boxes below. The answer is put into answer tags unless it begins with
`raw:`. In the answer, `‹text›×N` means N times the text, ⏎ a new line and ⇥ a tab. The verdict
`not_correct` means incorrect or unparsable.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from difftrain.records import AnswerKind, Sample, TaskSet

CATS = '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [50, 0, 60, 10], "label": "cat"}]'
REPETITION = re.compile(r"‹([^›]*)›×(\d+)")


@dataclass(frozen=True)
class Case:
    """One line of adversarial.tsv."""

    sample: Sample
    response: str
    verdict: str
    reason: str


def expand(text: str) -> str:
    """The text with repetitions, new lines and tabs written out."""
    text = REPETITION.sub(lambda match: match[1] * int(match[2]), text)
    return text.replace("⏎", "\n").replace("⇥", "\t")


def sample(kind: str, gold: str, options: str) -> Sample:
    """A sample with the fields that graders use."""
    return Sample(
        sample_id="0" * 16,
        images=(),
        question="How many shapes are there?",
        answer=CATS if gold == "CATS" else gold,
        answer_kind=AnswerKind(kind),
        options=tuple(options.split("|")) if options else (),
        task="test",
        task_set=TaskSet.perception,
        source="test",
    )


def cases() -> list[Case]:
    """Every line of adversarial.tsv."""
    parsed_cases = []
    for line in (Path(__file__).parent / "adversarial.tsv").read_text().split("\n"):
        if not line or line.startswith("# "):
            continue
        kind, gold, options, answer, verdict, reason = line.split("\t")
        is_raw = answer.startswith("raw:")
        text = expand(answer.removeprefix("raw:"))
        response = text if is_raw else f"<think>so</think><answer>{text}</answer>"
        parsed_cases.append(Case(sample(kind, gold, options), response, verdict, reason))
    return parsed_cases
