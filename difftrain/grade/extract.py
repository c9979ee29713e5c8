"""Where the answer is in a response, and whether the response has the required format.

The answer is inside the last answer tags, and there inside the last balanced `\\boxed{}`.
"""

import re

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
BOX_COMMAND = "\\boxed"
TAGS = ("<think>", "</think>", OPEN_TAG, CLOSE_TAG)
_FORMAT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


def tag_content(response: str) -> str | None:
    """The text between the last closed `<answer>` and its `</answer>`, unchanged."""
    end = response.rfind(CLOSE_TAG)
    start = response.rfind(OPEN_TAG, 0, end) if end >= 0 else -1
    if start < 0:
        return None
    start += len(OPEN_TAG)
    return response[start : response.index(CLOSE_TAG, start)]


def boxed_content(text: str) -> str | None:
    """The content of the last `\\boxed{}` whose braces balance; None if there is none.

    One pass over the text, so that a response full of unclosed boxes costs no more than another.
    """
    open_braces: list[int] = []
    start, content = -1, None
    i = 0
    while i < len(text):
        if text[i] == "\\" and text[i + 1 : i + 2] in ("{", "}", "\\"):
            i += 2
            continue
        if text[i] == "{":
            open_braces.append(i)
        elif text[i] == "}" and open_braces:
            brace = open_braces.pop()
            if brace > start and text.endswith(BOX_COMMAND, 0, brace):
                start, content = brace, text[brace + 1 : i]
        i += 1
    return content


def answer(response: str) -> str | None:
    """The answer of a response, stripped; None if it has no closed tags or they are empty."""
    content = tag_content(response)
    if content is None:
        return None
    boxed = boxed_content(content)
    return (content if boxed is None else boxed).strip() or None


def has_expected_format(response: str) -> bool:
    """Whether think tags and then answer tags occur exactly once, with only white space around.

    GRPO's format reward; it does not depend on whether the answer is correct.
    """
    return all(response.count(tag) == 1 for tag in TAGS) and bool(_FORMAT.fullmatch(response))
