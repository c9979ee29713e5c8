"""Telling that memory ran out, on a GPU or a CPU, and giving back what was let go of."""

import gc

import torch

ON_CPU = ("not enough memory", "can't allocate memory")
"""What torch's CPU allocator says in its RuntimeError."""


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ON_CPU)


def release() -> None:
    """Give back what nobody holds any more, so that a smaller try can have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
