"""The program of a worker process: `python -m difftrain.grade.worker`. Its parent is workers.py.

Reads a JSON message a line and writes a JSON reply a line. A message says how many seconds it may
take; should the parent be gone by then, the kernel's alarm ends this process.
"""

import importlib
import json
import os
import resource
import signal
import sys
from typing import Any, TextIO

import scipy.optimize  # noqa: F401  (boxes.py imports it late; no answer shall wait for it)

from difftrain.config.grade import BoxesCredit, GradeConfig, TextCredit
from difftrain.grade import expressions, grade_with_credit
from difftrain.records import AnswerKind, Sample, TaskSet

MEMORY_BYTES = 4 << 30
"""Address space of a worker: an answer that asks for more ends it."""
GRACE_SECONDS = 2.0
"""How much later than its parent a worker would end itself."""


def sample(message: dict[str, Any]) -> Sample:
    """The sample as far as graders look at it."""
    return Sample(
        sample_id="",
        images=(),
        question="",
        answer=message["answer"],
        answer_kind=AnswerKind(message["kind"]),
        options=tuple(message["options"]),
        task="",
        task_set=TaskSet.reasoning,
        source="",
    )


def rules(given: dict[str, Any]) -> GradeConfig:
    """The graders' settings, which came as JSON."""
    kinds = {"text": TextCredit(given["text"]), "boxes": BoxesCredit(given["boxes"])}
    return GradeConfig(**{**given, **kinds})


def reply(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to one message."""
    if "warm" in message:
        algebra = importlib.import_module("difftrain.grade.algebra")
        algebra.equal(r"\frac{1}{2}", r"\sqrt{3}")
        expressions.use(algebra.equal, algebra.parses)
        return {"ready": True}
    try:
        if "grade" in message:
            found = grade_with_credit(message["grade"], sample(message), rules(message["rules"]))
            return {"verdict": found.verdict, "value": found.value}
        if "equal" in message:
            return {"equal": expressions.equal(*message["equal"])}
        return {"parses": expressions.parses(*message["parses"])}
    except expressions.MathVerifyNotLoaded:
        return {"needs": "math-verify"}


def serve(out: TextIO) -> None:
    """Answer until the parent closes the pipe."""
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        message = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, message["seconds"] + GRACE_SECONDS)
        out.write(json.dumps(reply(message)) + "\n")
        out.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    expressions.inside_a_worker()
    serve(own)
