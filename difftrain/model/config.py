"""Settings of the model: which one, and how it is run when asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

SHIPPED = ("tiny",)
"""Short names of models that come with the package."""


class Dtype(StrEnum):
    """The number format of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A vision-language model of the Qwen2.5-VL kind."""

    name: str = "tiny"
    """`tiny` ships with the package; otherwise a local folder or a hub id."""
    revision: str | None = None
    """Commit or tag of a hub id."""
    dtype: Dtype = Dtype.bfloat16
    """Both papers train and evaluate in bf16; the tiny model's group says float32."""
    batch_size: int = 64
    """Requests generated together."""
    attention_batch_size: int = 16
    """Responses measured together in the attention pass."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        is_folder = Path(self.name).expanduser().is_dir()
        if self.name.startswith((".", "/", "~")) and not is_folder:
            yield "name", "there is no such folder"
        elif self.name not in SHIPPED and "/" not in self.name and not is_folder:
            near = get_close_matches(self.name, SHIPPED, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield "name", f"is neither {' nor '.join(SHIPPED)}, a folder nor a hub id{hint}"
        for field in ("batch_size", "attention_batch_size"):
            if getattr(self, field) < 1:
                yield field, "must be at least 1"
