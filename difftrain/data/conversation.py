"""The words a row asks with: a plain prompt, or the one user turn of a list of messages.

System turns are left out, because prompts.SYSTEM says what the model is told; a trailing
assistant turn is left out, because it is an answer.
"""

from typing import Any

from difftrain.data.quarantine import RowError


def words(asked: Any) -> tuple[str, int]:
    """The user's text and how many image parts stand in it. Raises RowError."""
    if isinstance(asked, str):
        return asked, 0
    if not isinstance(asked, list) or not all(isinstance(turn, dict) for turn in asked):
        raise RowError("empty question: neither text nor a list of {role, content}")
    turns = [turn for turn in asked if turn.get("role") != "system"]
    if turns and turns[-1].get("role") == "assistant":
        turns = turns[:-1]
    roles = [str(turn.get("role")) for turn in turns]
    if roles != ["user"]:
        raise RowError(f"not one question: needs one user turn, found {', '.join(roles) or 'none'}")
    return content(turns[0].get("content"))


def content(held: Any) -> tuple[str, int]:
    """A turn's text and image parts: a string, or a list of parts."""
    if isinstance(held, str):
        return held, 0
    if not isinstance(held, list) or not all(isinstance(part, dict) for part in held):
        raise RowError("empty question: the user turn holds neither text nor parts")
    kinds = {str(part.get("type")) for part in held}
    if unknown := kinds - {"text", "image"}:
        raise RowError(f"not one question: parts of type {', '.join(sorted(unknown))}")
    said = [str(part.get("text") or "") for part in held if part.get("type") == "text"]
    return "\n".join(said), len(held) - len(said)


def last_answer(turns: Any) -> str | None:
    """The text of a trailing assistant turn; None where there is none."""
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return None
    if turns[-1].get("role") != "assistant":
        return None
    said, _ = content(turns[-1].get("content"))
    return said


def pictures(turns: Any) -> tuple[Any, ...]:
    """The payloads of the image parts of all turns, in order."""
    parts = [
        part
        for turn in turns
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        for part in turn["content"]
    ]
    shown = [part for part in parts if isinstance(part, dict) and part.get("type") == "image"]
    return tuple(part.get("image") for part in shown)
