"""Six benchmarks in the reference harness's way: what is asked, and what an answer is worth.

The names below are loaded when they are first used, because settings read config.py of this
folder and must not wait for the scorers' libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difftrain.evaluate.scoring import build_prompt, score_item

__all__ = ["build_prompt", "score_item"]


def __getattr__(name: str) -> Any:
    """`score_item` and `build_prompt` of scoring.py."""
    if name in __all__:
        return getattr(import_module("difftrain.evaluate.scoring"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
