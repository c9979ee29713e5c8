"""The text of prompts: what the model is sent, and the question in a row's own prompt or messages.

Probe, training and evaluation all take the system prompt and the text of options from here.
"""

import re
from collections.abc import Sequence
from typing import Any

from difftrain.data.quarantine import RowError

# The format that both papers train for (Qi et al. 2026, section 4).
SYSTEM = (
    "Think step by step inside <think></think>, then give the final answer inside "
    "<answer></answer>, and write nothing else."
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PLACEHOLDER = re.compile(r"<image>\n?")
CONTROL_TOKEN = re.compile(r"<\|\w+\|>")  # the chat template's own, such as <|image_pad|>


def multiple_choice(question: str, options: Sequence[str], hint: str | None = None) -> str:
    """The reference harness's text of a multiple-choice question, blank before its last newline."""
    lines = [f"Hint: {hint}\n"] if hint else []
    lines += [f"Question: {question}\n", "Options:\n"]
    lines += [f"{letter}. {text}\n" for letter, text in zip(LETTERS, options, strict=False)]
    return "".join([*lines, "Please select the correct answer from the options above. \n"])


def user_text(question: str, options: Sequence[str]) -> str:
    """The text of the user turn: the question, with its options if it has any."""
    return multiple_choice(question, options) if options else question


def messages(parts: Sequence[Any], system: str | None = SYSTEM) -> list[dict[str, Any]]:
    """Messages in the chat-template form; a part is text (str) or an image (anything else)."""

    def to_content(part: Any) -> dict[str, str]:
        return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}

    first = [{"role": "system", "content": [to_content(system)]}] if system else []
    return [*first, {"role": "user", "content": list(map(to_content, parts))}]


def question_text(prompt: Any, num_images: int) -> str:
    """The question of a row's prompt (text or messages), without image placeholders.

    The images go first, where `messages` puts them. System turns are left out, because SYSTEM takes
    their place, and a trailing assistant turn is the row's answer. Raises RowError where <image>
    marks and image parts are neither absent nor as many as the images.
    """
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(prompt, list) or not all(isinstance(turn, dict) for turn in prompt):
        raise RowError("empty question: neither text nor a list of {role, content}")
    turns = [turn for turn in prompt if turn.get("role") != "system"]
    if turns and turns[-1].get("role") == "assistant":
        turns = turns[:-1]
    roles = ", ".join(str(turn.get("role")) for turn in turns)
    if roles != "user":
        raise RowError(f"not one question: needs one user turn, found {roles or 'none'}")
    text, num_marks = _turn_content(turns[0].get("content"))
    num_marks += len(PLACEHOLDER.findall(text))
    if num_marks not in (0, num_images):
        raise RowError(f"placeholder mismatch: {num_marks} <image>, but {num_images} images")
    if not (question := PLACEHOLDER.sub("", text).strip()):
        raise RowError("empty question: there is no text besides <image>")
    if token := CONTROL_TOKEN.search(question):
        raise RowError(f"control token in the question: {token.group()}")
    return question


def _turn_content(content: Any) -> tuple[str, int]:
    """A turn's text and the number of its image parts. Raises RowError."""
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RowError("empty question: the user turn holds neither text nor parts")
    kinds = {str(part.get("type")) for part in content}
    if unknown := kinds - {"text", "image"}:
        raise RowError(f"not one question: parts of type {', '.join(sorted(unknown))}")
    texts = [str(part.get("text") or "") for part in content if part.get("type") == "text"]
    return "\n".join(texts), len(content) - len(texts)


def last_response(turns: Any) -> str | None:
    """The text of a trailing assistant turn; None where there is none."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return None
    return _turn_content(last.get("content"))[0]
