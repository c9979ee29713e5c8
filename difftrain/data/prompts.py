"""The prompts sent to the model, and how to extract the question from a row's prompt or messages.

Probe, training and evaluation share the system prompt SYSTEM and the wording of options.
"""

import re
from collections.abc import Sequence
from typing import Any

from difftrain.data.quarantine import RowError

# The format that Qi et al. 2026 (section 4) and the paper "Truth in the Few" (RAP) train for.
SYSTEM = (
    "Think step by step inside <think></think>, then give the final answer inside "
    "<answer></answer>, and write nothing else."
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PLACEHOLDER = re.compile(r"<image>\n?")
IMAGE_PARTS = ("image", "image_url")  # the types of a message's parts that are images
CONTROL_TOKEN = re.compile(r"<\|\w+\|>")  # such as <|image_pad|>, for chat templates only


def multiple_choice(question: str, options: Sequence[str], hint: str | None = None) -> str:
    """A multiple-choice question in VLMEvalKit's words, which end in a space and a newline."""
    lines = [f"Hint: {hint}\n"] if hint else []
    lines += [f"Question: {question}\n", "Options:\n"]
    lines += [f"{letter}. {text}\n" for letter, text in zip(LETTERS, options, strict=False)]
    return "".join([*lines, "Please select the correct answer from the options above. \n"])


def user_text(question: str, options: Sequence[str]) -> str:
    """The text of the user turn: the question and, if there are any, its options."""
    return multiple_choice(question, options) if options else question


def messages(parts: Sequence[Any], system: str | None = SYSTEM) -> list[dict[str, Any]]:
    """Messages for a chat template. A part is text if it is a str, else an image."""

    def to_content(part: Any) -> dict[str, str]:
        return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}

    system_turns = [{"role": "system", "content": [to_content(system)]}] if system else []
    return [*system_turns, {"role": "user", "content": list(map(to_content, parts))}]


def question_text(prompt: Any, num_images: int) -> str:
    """The question in a row's prompt, which is text or a list of messages.

    <image> marks are removed, because every prompt to the model puts the images before the text.
    System turns are dropped, because SYSTEM replaces them, and so is the assistant's final turn.
    Raises RowError("SHORT REASON: DETAILS"); rejected rows are counted by the short reason.
    """
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(prompt, list) or not all(isinstance(turn, dict) for turn in prompt):
        raise RowError("empty question: the prompt is neither text nor a list of {role, content}")
    turns = [turn for turn in prompt if turn.get("role") != "system"]
    if turns and turns[-1].get("role") == "assistant":
        turns = turns[:-1]
    roles = ", ".join(str(turn.get("role")) for turn in turns)
    if roles != "user":
        raise RowError(f"unusable question: needs exactly one user turn, found {roles or 'none'}")
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
        raise RowError("empty question: the content of a turn is neither text nor a list of parts")
    types = list(map(_part_type, content))
    if others := {*types} - {"text", *IMAGE_PARTS}:
        raise RowError(f"unusable question: parts of type {', '.join(sorted(others))}")
    pairs = zip(types, content, strict=True)
    texts = [str(part.get("text") or "") for part_type, part in pairs if part_type == "text"]
    return "\n".join(texts), len(content) - len(texts)


def _part_type(part: dict[str, Any]) -> str:
    """A part's type; Qwen's first format has none: {"image": ...} or {"text": ...}."""
    if (part_type := part.get("type")) is not None:
        return str(part_type)
    return "text" if part.get("text") is not None else "image"


def part_images(turns: Any) -> list[Any]:
    """The image references inside the messages' parts, in order.

    A part names its image as Qwen ({"image": ...}), OpenAI ({"image_url": {"url": ...}}) or
    transformers do ({"url", "path" or "base64": ...}).
    """
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    contents = [turn.get("content") for turn in turns]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    references = []
    for part in parts:
        if isinstance(part, dict) and _part_type(part) in IMAGE_PARTS:
            values = (part.get(key) for key in ("image", "image_url", "url", "path"))
            reference = next((value for value in values if value is not None), None)
            if isinstance(reference, dict) and reference.get("url") is not None:
                reference = reference["url"]
            if reference is None and part.get("base64") is not None:
                reference = {"bytes": part["base64"]}
            references += [] if reference is None else [reference]
    return references


def last_response(turns: Any) -> str | None:
    """The text of the last turn if it is the assistant's, else None."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return None
    return _turn_content(last.get("content"))[0]  # [0]: the text
