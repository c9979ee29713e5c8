"""Finds the options inside the text of a multiple-choice question.

They stand on lines of their own (`A. cat`, `(B) dog`) or in one line (`(A) 1 (B) 2`).
"""

import re

from difftrain.data.prompts import LETTERS

# A mark at the start of a line; a mark in parentheses anywhere; `A.` after the end of a sentence.
MARK = re.compile(r"(?m)(?:^[ \t]*|(?<=\s))(?:\(([A-Z])\)|([A-Z])[.):](?=\s))[ \t]*")
ENDS_SENTENCE = re.compile(r"[?.:!？。：！\n]\s*\Z|\A\s*\Z")
HEADING = re.compile(r"(?i)\n?[ \t]*(?:the )?(?:answer )?(?:options|choices)(?: are)?:?\s*\Z")
# Words of a sentence that names the options: `Which is larger, (A) or (B)?`
NO_OPTION = re.compile(r"(?i)[\s.,;:!?()\[\]'\"]*(?:and|or)?[\s.,;:!?()\[\]'\"]*|.*\s(?:and|or)")
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
    last_end = question.find("\n", marks[-1].end())
    last_end = len(question) if last_end < 0 else last_end
    options = _texts_after(marks, question[:last_end])
    before, after = question[: marks[0].start()], question[last_end:].strip()
    heading = HEADING.search(before)
    if not ENDS_SENTENCE.search(before) and not heading:
        return None  # a name such as A. Smith, or points (A) and (B)
    if re.search("[?？]", question[marks[0].end() :]) or any(map(NO_OPTION.fullmatch, options)):
        return None
    if any("\n" in text or len(text) > MAX_OPTION_CHARS for text in options):
        return None
    before = before[: heading.start()] if heading else before
    if after == CLOSING:
        before, after = QUESTION_WORD.sub("", before), ""
    rest = "\n".join(text for text in (before.strip(), after) if text)
    return (rest, options) if before.strip() else None


def marked_options(text: str) -> list[str] | None:
    """The options of a text that consists of them, as `A. cat` and `B. dog`; else None."""
    marks = _consecutive_marks(text)
    if len(marks) < 2 or text[: marks[0].start()].strip():
        return None
    options = _texts_after(marks, text)
    return [*options] if all(options) else None


def _texts_after(marks: list[re.Match[str]], text: str) -> tuple[str, ...]:
    """The text after each mark, up to the next one."""
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return tuple(text.rstrip(",;").strip() for text in texts)


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
