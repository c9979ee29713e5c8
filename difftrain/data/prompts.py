"""What the model is told: the system prompt, and the text of a question with options.

Probe, training and evaluation all take their words from here.
"""

from collections.abc import Sequence
from typing import Any

SYSTEM = (
    "Think step by step inside <think></think>, then give the final answer inside "
    "<answer></answer>, and write nothing else."
)
"""The layout both papers train for (P, section 4)."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def multiple_choice(question: str, options: Sequence[str], hint: str | None = None) -> str:
    """The reference harness's text of a multiple-choice question, blank before its last newline."""
    lines = [f"Hint: {hint}\n"] if hint else []
    lines.append(f"Question: {question}\n")
    lines.append("Options:\n")
    lines += [f"{letter}. {text}\n" for letter, text in zip(LETTERS, options, strict=False)]
    lines.append("Please select the correct answer from the options above. \n")
    return "".join(lines)


def user_text(question: str, options: Sequence[str]) -> str:
    """The user's words: the question as it stands, with its options if it has any."""
    return multiple_choice(question, options) if options else question


def messages(parts: Sequence[Any], system: str | None = SYSTEM) -> list[dict[str, Any]]:
    """A conversation in the chat-template form; a part is words (str) or a picture (all else)."""
    turns: list[dict[str, Any]] = []
    if system:
        turns.append({"role": "system", "content": [{"type": "text", "text": system}]})
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in parts
    ]
    turns.append({"role": "user", "content": content})
    return turns
