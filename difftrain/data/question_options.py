"""Finds the options inside the text of a multiple-choice question.

They stand on lines of their own (`A. cat`, `(B) dog`) or in one line (`(A) 1 (B) 2`).
"""

import re

from difftrain.data.prompts import LETTERS

# A mark at the start of a line; a mark in parentheses anywhere; `A.` after the end of a sentence.
MARK = re.compile(r"(?m)(?:^[ \t]*|(?<=\s))(?:\(([A-Z])\)|([A-Z])[.):](?=\s))[ \t]*")
ENDS_SENTENCE = re.compile(r"[?.:\n]\s*\Z|\A\s*\Z")
HEADING = re.compile(r"(?i)\n?[ \t]*(?:the )?(?:answer )?(?:options|choices)(?: are)?:?\s*\Z")
# The words that prompts.multiple_choice adds.
QUESTION_WORD = re.compile(r"\AQuestion:[ \t]*")
CLOSING = "Please select the correct answer from the options above."
MAX_OPTION_CHARS = 300  # our choice; a longer text after a mark is no option


def split(question: str) -> tuple[str, tuple[str, ...]] | None:
    """The question without its options, and the options A, B, ...; None if there are none.

    Text on the lines after the last option stays in the question.
    """
    marks = _consecutive_marks(question)
    if len(marks) < 2:
        return None
    ends = [mark.start() for mark in marks[1:]]
    last_end = question.find("\n", marks[-1].end())
    ends.append(len(question) if last_end < 0 else last_end)
    texts = [question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    options = tuple(text.rstrip(",;").strip() for text in texts)
    before, after = question[: marks[0].start()], question[ends[-1] :].strip()
    if not ENDS_SENTENCE.search(before) and not marks[0][1]:
        return None  # a name such as A. Smith
    if not all(options) or any("\n" in text or len(text) > MAX_OPTION_CHARS for text in options):
        return None
    before = HEADING.sub("", before)
    if after == CLOSING:
        before, after = QUESTION_WORD.sub("", before), ""
    rest = "\n".join(text for text in (before.strip(), after) if text)
    return (rest, options) if before.strip() else None


def _consecutive_marks(question: str) -> list[re.Match[str]]:
    """The marks A, B, ... in order, of one style, from the last A that is followed by a B."""
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for mark in MARK.finditer(question):
        letter, in_parentheses = mark[1] or mark[2], mark[1] is not None
        if letter == "A":
            run = [mark]
        elif run and letter == LETTERS[len(run)] and in_parentheses == (run[0][1] is not None):
            run.append(mark)
        if len(run) > 1:
            best = run
    return best
