"""Where the answer stands in a response: the last answer tags, inside them the last box."""

import re

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
BOX_COMMAND = "\\boxed"


def tag_content(response: str) -> str | None:
    """What stands between the last `<answer>` that is closed and its `</answer>`, as written."""
    end = response.rfind(CLOSE_TAG)
    start = response.rfind(OPEN_TAG, 0, end) if end >= 0 else -1
    if start < 0:
        return None
    start += len(OPEN_TAG)
    return response[start : response.index(CLOSE_TAG, start)]


def boxed_content(text: str) -> str | None:
    """The content of the last `\\boxed{}` whose braces balance; None if there is none.

    One pass over the text, so that a response full of opening boxes costs no more than any other.
    """
    opened: list[int] = []
    start, content = -1, None
    place = 0
    while place < len(text):
        letter = text[place]
        if letter == "\\" and text[place + 1 : place + 2] in ("{", "}", "\\"):
            place += 2
            continue
        if letter == "{":
            opened.append(place)
        elif letter == "}" and opened:
            brace = opened.pop()
            if brace > start and text.endswith(BOX_COMMAND, 0, brace):
                start, content = brace, text[brace + 1 : place]
        place += 1
    return content


def answer(response: str) -> str | None:
    """The answer of a response, stripped; None where it has no closed tags or they hold nothing."""
    said = tag_content(response)
    if said is None:
        return None
    inside = boxed_content(said)
    return (said if inside is None else inside).strip() or None


TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LAYOUT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


def has_expected_format(response: str) -> bool:
    """Thought tags, then answer tags, each exactly once, and only white space around them."""
    once = all(response.count(tag) == 1 for tag in TAGS)
    return once and _LAYOUT.fullmatch(response) is not None
