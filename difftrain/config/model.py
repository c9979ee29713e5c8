"""Settings of the model: which one, and how it generates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from difftrain.config.engine import EngineKind, ServerConfig, VllmConfig, url_problem
from difftrain.config.fingerprint import setting
from difftrain.model import checkpoint_files

SHIPPED = ("tiny",)
"""Short names of models that come with the package."""
FIXED_ROWS = 16
"""Rows of a step in deterministic mode, whatever batch_size says."""


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
    dtype: Dtype = setting(Dtype.bfloat16, fingerprint=("probe", "train", "responses", "preflight"))
    """Both papers train and evaluate in bf16; the tiny model's group says float32."""
    batch_size: int = 64
    """Responses generated together at most; halved when memory runs out."""
    batch_tokens: int = 262_144
    """Limit of responses generated together times the longest (prompt and max_new_tokens)."""
    deterministic: bool = False
    """Fixed shapes: the same responses, bit for bit, for any batch_size, ranks or restart.
    Sixteen rows in every step, each prompt prefilled alone: see difftrain/model/README.md."""
    attention_batch_size: int = 16
    """Responses measured together in the attention pass."""
    engine: EngineKind = setting(EngineKind.hf, fingerprint=())
    """What generates; the attention pass and training always run in this process."""
    url: str | None = setting(None, fingerprint=())
    """Address of the server of engine=http, including its version: http://host:8000/v1."""
    server: ServerConfig = setting(default_factory=ServerConfig, fingerprint=())
    vllm: VllmConfig = setting(default_factory=VllmConfig, fingerprint=())

    @property
    def max_concurrency(self) -> int:
        """Responses that the engine generates at the same time, in one process."""
        if self.engine is EngineKind.hf:
            return FIXED_ROWS if self.deterministic else self.batch_size
        http = self.engine is EngineKind.http
        return self.server.max_concurrency if http else self.vllm.max_num_seqs

    @property
    def in_process(self) -> "ModelConfig":
        """The same, generating in this process instead of on a server."""
        if self.engine is not EngineKind.http:
            return self
        return replace(self, engine=EngineKind.hf, url=None)

    @property
    def served_name(self) -> str:
        """The model's name as the server knows it."""
        return self.server.name or self.name

    @property
    def engine_settings(self) -> dict[str, Any]:
        """The engine settings that change responses; for engine=hf only fixed shapes.

        Address, limits and timeouts of a server are not among them.
        """
        if self.engine is EngineKind.hf:
            return {"deterministic": True} if self.deterministic else {}
        if self.engine is EngineKind.vllm:
            return {"engine": "vllm"}
        return {"engine": "http", "served": self.served_name, "extra": dict(self.server.extra)}

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        is_folder = Path(self.name).expanduser().is_dir()
        if self.name.startswith((".", "/", "~")) and not is_folder:
            yield "name", "there is no such folder"
        elif is_folder and (missing := self.incomplete()):
            yield "name", missing
        elif self.name not in SHIPPED and "/" not in self.name and not is_folder:
            near = get_close_matches(self.name, SHIPPED, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield "name", f"is neither {' nor '.join(SHIPPED)}, a folder nor a hub id{hint}"
        for key in ("batch_size", "batch_tokens", "attention_batch_size"):
            if getattr(self, key) < 1:
                yield key, "must be at least 1"
        if problem := url_problem(self.engine, self.url):
            yield "url", problem
        if self.deterministic and self.engine is not EngineKind.hf:
            yield "deterministic", "works with engine=hf only; a server makes its own batches"

    def incomplete(self) -> str | None:
        """What the named folder lacks; None if nothing, or if a server has the model."""
        if self.name in SHIPPED or self.engine is EngineKind.http:
            return None
        missing = checkpoint_files.missing_part(Path(self.name).expanduser())
        return missing and f"the folder is incomplete: {missing}; copy or make it again"
