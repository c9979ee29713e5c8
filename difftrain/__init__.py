"""Python functions that score how difficult multimodal samples are and select some for training.

    import difftrain

    samples = difftrain.load_dataset("mine.jsonl", "data.limit=200")
    model = difftrain.load_model("Qwen/Qwen2.5-VL-7B-Instruct")
    scores = difftrain.score_samples(samples, model, "difficulty=pism", "probe.draws=4")
    selected = difftrain.select_samples(scores, "select.strata=[hard]")
    report = difftrain.read_report("outputs/run/grpo_hard-0123456789ab")

Settings are KEY=VALUE, as on the command line. The measure pism is the masked share of an image at
which the model fails; probe.draws is the responses per prompt. torch is imported at first need.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difftrain.api import (
        load_dataset,
        load_model,
        probe_samples,
        read_report,
        score_samples,
        select_samples,
    )

    __version__: str

__all__ = [
    "__version__",
    "load_dataset",
    "load_model",
    "probe_samples",
    "read_report",
    "score_samples",
    "select_samples",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("difftrain")
    if name in __all__:
        return getattr(import_module("difftrain.api"), name)
    raise AttributeError(f"module 'difftrain' has no attribute {name!r}")
