"""Which settings count in the fingerprint of a stage's folder: metadata of each field.

A field without metadata counts in the fingerprint of its own section's stage. `setting(...)` says
otherwise: it counts only in the fingerprints of the named stages, or, with (), in none, because it
changes no result (limits of a server) or because paths.py has something better (the contents of
benchmark files instead of their path).
"""

from collections.abc import Callable
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

KEY = "fingerprint"
STAGES = {
    "shapes", "files", "preflight", "probe", "attention", "score", "retest", "select_sft", "train",
    "responses", "evaluate",
}  # fmt: skip
"""Stages that settings of other sections count in; shapes and files are the two kinds of data."""


def setting(
    default: Any = MISSING,
    *,
    fingerprint: tuple[str, ...],
    default_factory: Callable[[], Any] | Any = MISSING,
) -> Any:
    """A settings field that counts in the fingerprints of these stages only."""
    assert set(fingerprint) <= STAGES, fingerprint
    metadata = {KEY: fingerprint}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def counted_settings(section: Any, stage: str | None = None, own: bool = True) -> dict[str, Any]:
    """The settings of a section that count in a stage's fingerprint, as JSON can hold them.

    `own` says whether the stage is the section's own: then fields without metadata count. Without
    `stage`, all that count in any fingerprint.
    """
    counted = {}
    for entry in fields(section):
        stages = entry.metadata.get(KEY)
        if own if stages is None else stage in stages or (stage is None and stages):
            value = getattr(section, entry.name)
            counted[entry.name] = counted_settings(value, stage) if is_dataclass(value) else value
    return counted
