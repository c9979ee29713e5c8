"""Whether a response has the layout the system prompt asks for. Not here: whether it is right."""

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LAYOUT = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


def well_laid_out(response: str) -> bool:
    """Thought tags, then answer tags, each exactly once, and only white space around them."""
    once = all(response.count(tag) == 1 for tag in TAGS)
    return once and _LAYOUT.fullmatch(response) is not None
