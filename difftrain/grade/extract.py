"""Where the answer is in a response, and whether the response has the required format.

The answer is inside the last answer tags, and there inside the last balanced `\\boxed{}`.
"""

import re

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
TAGS = ("<think>", "</think>", OPEN_TAG, CLOSE_TAG)
_FORMAT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)
_BRACE = re.compile(r"\\[{}\\]|[{}]")


def tag_content(response: str) -> str | None:
    """The text between the last closed `<answer>` and its `</answer>`, unchanged."""
    before, close_tag, _ = response.rpartition(CLOSE_TAG)
    _, open_tag, content = before.rpartition(OPEN_TAG)
    return content.partition(CLOSE_TAG)[0] if open_tag and close_tag else None


def boxed_content(text: str) -> str | None:
    """The content of the last `\\boxed{}` whose braces balance; None if there is none.

    One pass over the text, so that a response full of unclosed boxes costs no more than another.
    """
    open_braces: list[int] = []
    start, content = -1, None
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            brace = open_braces.pop()
            if brace > start and text.endswith("\\boxed", 0, brace):
                start, content = brace, text[brace + 1 : match.start()]
    return content


def answer(response: str) -> str | None:
    """The answer of a response, stripped; None if it has no closed tags or they are empty."""
    content = tag_content(response)
    if content is None:
        return None
    boxed = boxed_content(content)
    return (content if boxed is None else boxed).strip() or None


def has_expected_format(response: str) -> bool:
    """GRPO's format reward: think tags and then answer tags, each once, and nothing around them."""
    return all(response.count(tag) == 1 for tag in TAGS) and bool(_FORMAT.fullmatch(response))
