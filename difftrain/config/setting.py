"""A field of the settings: its default, its limits, and the fingerprints that it is part of.

A stage's fingerprint is a hash of settings, and the name of the stage's folder. If such a setting
changes, the stage runs again. By default a field is part of the fingerprint of the stage that its
section configures; `fingerprint` names other stages instead. It is () if the field changes no
result, or if paths.py hashes something better, such as a file's contents instead of its path.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from difflib import get_close_matches
from operator import ge, gt, le, lt
from typing import Any

Problems = Iterator[tuple[str, str]]
"""What a section's check() yields: (field, rule) for each value that breaks a rule."""
STAGES = {
    "shapes", "files", "preflight", "probe", "attention", "likelihood", "score", "retest",
    "select_sft", "train", "responses", "evaluate",
}  # fmt: skip
"""Stages that `fingerprint` may name. The data stage has two names: shapes (synthetic) and files.
preflight checks that the model can be trained; likelihood measures that of gold answers; retest
probes some samples again."""
LIMITS = {"at_least": ge, "above": gt, "at_most": le, "below": lt}
RULES = {  # the error message for each combination of limits
    ("at_least",): "must be at least {at_least}",
    ("above",): "must be above {above}",
    ("at_least", "at_most"): "must lie between {at_least} and {at_most}",
    ("at_least", "below"): "must be at least {at_least} and below {below}",
    ("above", "at_most"): "must lie above {above} and at or below {at_most}",
    ("above", "below"): "must lie strictly between {above} and {below}",
}


def setting(
    default: Any = MISSING,
    *,
    fingerprint: tuple[str, ...] | None = None,
    default_factory: Callable[[], Any] | Any = MISSING,
    rule: str | None = None,
    or_null: str | None = None,
    **limits: float,
) -> Any:
    """A settings field whose value must be within `limits` (see LIMITS).

    `rule` is the error message, by default the text in RULES. null is always allowed; `or_null`
    is what the error message says about it.
    """
    assert set(fingerprint or ()) <= STAGES, fingerprint
    assert limits.keys() <= LIMITS.keys(), limits
    if limits and rule is None:
        is_count = limits == {"at_least": 0}
        rule = "must not be negative" if is_count else RULES[tuple(limits)].format(**limits)
        rule += f", or null {or_null}" if or_null else ""
    metadata = {"fingerprint": fingerprint, "limits": limits, "rule": rule}
    return field(default=default, default_factory=default_factory, metadata=metadata)


def limit_problems(section: Any) -> Problems:
    """Each setting of a section that is outside its limits, with the rule that it breaks."""
    for entry in fields(section):
        value, limits = getattr(section, entry.name), entry.metadata.get("limits", {})
        if value is not None and not all(LIMITS[name](value, x) for name, x in limits.items()):
            yield entry.name, entry.metadata["rule"]


def did_you_mean(name: str, names: Sequence[str], prefix: str = "") -> str:
    """`; did you mean NAME?` with the most similar of the names, or "" if none is similar."""
    near = get_close_matches(name, names, 1)
    if not near and "." in name:
        by_last_part = {key.rsplit(".", 1)[-1]: key for key in names}
        last_part = get_close_matches(name.rsplit(".", 1)[-1], by_last_part, 1)
        near = [by_last_part[part] for part in last_part]
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def hashed_settings(section: Any, stage: str | None = None, own: bool = True) -> dict[str, Any]:
    """The settings of a section that a stage's fingerprint hashes, ready for JSON.

    `own`: the section configures this stage, so fields without `fingerprint` are included. In a
    nested section they always are, because the field that holds it decides whether it is hashed.
    Without `stage`: every setting that is part of any fingerprint.
    """
    settings = {}
    for entry in fields(section):
        stages = entry.metadata.get("fingerprint")
        is_named = bool(stages) if stage is None else stage in (stages or ())
        if is_named or (own and stages is None):
            value = getattr(section, entry.name)
            settings[entry.name] = hashed_settings(value, stage) if is_dataclass(value) else value
    return settings
