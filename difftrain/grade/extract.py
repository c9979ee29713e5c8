"""Finds the answer in a response, and checks the format of the response.

The answer is the text in the last closed answer tags. If they contain a `\\boxed{}`, the answer is
the content of the last one.
"""

import re

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
TAGS = ("<think>", "</think>", OPEN_TAG, CLOSE_TAG)
MAX_BOXES = 50  # of one answer that are read
_FORMAT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)
_BRACE = re.compile(r"\\[{}\\]|[{}]")


def tag_content(response: str) -> str | None:
    """The text inside the last closed `<answer></answer>`, unchanged; None if there is none."""
    before, close_tag, _ = response.rpartition(CLOSE_TAG)
    _, open_tag, content = before.rpartition(OPEN_TAG)
    return content.partition(CLOSE_TAG)[0] if open_tag and close_tag else None


def boxed_content(text: str) -> str | None:
    """The content of the last `\\boxed{}` whose braces balance, found in one pass, or None."""
    open_braces: list[int] = []
    box_start, content = -1, None
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            start = open_braces.pop()
            if start > box_start and text.endswith("\\boxed", 0, start):
                box_start, content = start, text[start + 1 : match.start()]
    return content


def all_boxed(text: str) -> list[str]:
    """The contents of all `\\boxed{}` that are in no other one, in their order."""
    contents = []
    while len(contents) < MAX_BOXES and (content := boxed_content(text)) is not None:
        contents.append(content)
        text = text[: text.rindex(f"\\boxed{{{content}}}")]
    return contents[::-1]


def answer(response: str) -> str | None:
    """The answer of a response, stripped; None if it has no closed answer tags or empty ones."""
    content = tag_content(response)
    if content is None:
        return None
    boxed = boxed_content(content)
    return (content if boxed is None else boxed).strip() or None


def in_tags(thought: str, answer: str) -> str:
    """Thought and answer in the format that the prompt asks for; tags inside them are removed."""
    for tag in TAGS:
        thought, answer = thought.replace(tag, ""), answer.replace(tag, "")
    return f"<think>{thought.strip()}</think>{OPEN_TAG}{answer.strip()}{CLOSE_TAG}"


def has_expected_format(response: str) -> bool:
    """GRPO's format reward: think tags, then answer tags, each once, and no other text."""
    return all(response.count(tag) == 1 for tag in TAGS) and bool(_FORMAT.fullmatch(response))
