"""The outcome of a preflight: one tick a check, as a table. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tick:
    """One check: whether it passed, and what was seen or the cause of the failure."""

    name: str
    passed: bool
    told: str


class PreflightFailed(RuntimeError):
    """The model and its settings are not fit for training; the message holds the table."""


def table(ticks: Sequence[Tick]) -> str:
    """The ticks as text, failures with their cause."""
    width = max((len(tick.name) for tick in ticks), default=0)
    return "\n".join(
        f"{'✓' if tick.passed else '✗'}  {tick.name:<{width}}  {tick.told}" for tick in ticks
    )


def held_up(ticks: Sequence[Tick]) -> str | None:
    """What to say when a check failed; None if all passed."""
    failed = [tick for tick in ticks if not tick.passed]
    if not failed:
        return None
    causes = "\n".join(f"  {tick.name}: {tick.told}" for tick in failed)
    return f"{len(failed)} of {len(ticks)} preflight checks failed:\n{causes}\n\n{table(ticks)}"
