"""Settings of the model: which one, what generates with it, and how a server or vLLM is used."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from difftrain.config.fingerprint import setting
from difftrain.model import resolve

FIXED_ROWS = 16
"""Rows of a step in deterministic mode, whatever batch_size says."""
RESERVED_FIELDS = ("model", "messages", "temperature", "seed", "max_tokens", "n", "stream")
"""Fields that difftrain sets in every request."""


class EngineKind(StrEnum):
    """What generates responses."""

    hf = "hf"
    """transformers in this process."""
    vllm = "vllm"
    """vLLM's offline engine in this process (the extra vllm; needs a GPU)."""
    http = "http"
    """A server that speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy, transformers."""


@dataclass(kw_only=True, slots=True)
class ServerConfig:
    """How a server is called (model.engine=http). Only `name` and `extra` may change a response."""

    name: str | None = None
    """The model's name on the server; null takes model.name."""
    api_key_env: str = "MODEL_API_KEY"
    """Environment variable with the API key, if the server needs one; it is never written."""
    max_concurrency: int = 64
    """Open requests of each process at the same time."""
    max_attempts: int = 5
    """Attempts for one response before its sample is marked as failed."""
    timeout_s: float = 600.0
    """Limit from sending a request to the last byte of the response."""
    backoff_s: float = 1.0
    """Pause before the second attempt, doubled each time; Retry-After is obeyed."""
    max_outage_s: float = 1800.0
    """How long the server may be away during a run before the run ends."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request, with a plus: +model.server.extra.top_k=20."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not self.api_key_env.isidentifier():
            yield "api_key_env", "must be the name of an environment variable"
        elif not (os.environ.get(self.api_key_env, "") + " ").isprintable():
            yield "api_key_env", "names a variable whose value is not one line of plain characters"
        yield from client_problems(self, max_concurrency=1024, max_timeout_s=86_400)
        if not 0 <= self.max_outage_s <= 604_800:
            yield "max_outage_s", "must lie between 0 and 604800"
        if reserved := [name for name in self.extra if name in RESERVED_FIELDS]:
            yield "extra", f"may not set {', '.join(reserved)}"


@dataclass(kw_only=True, slots=True)
class VllmConfig:
    """vLLM's offline engine (model.engine=vllm)."""

    tensor_parallel_size: int = 1
    """GPUs that share one copy of the model; GPUs in all: ranks times this."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory that it may use."""
    max_model_len: int | None = None
    """Limit of prompt and response tokens together; null takes the model's own."""
    max_num_seqs: int = 256
    """Responses that are generated at the same time."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.tensor_parallel_size < 1:
            yield "tensor_parallel_size", "must be at least 1"
        if not 0.1 <= self.gpu_memory_utilization <= 1:
            yield "gpu_memory_utilization", "must lie between 0.1 and 1"
        if self.max_model_len is not None and self.max_model_len < 256:
            yield "max_model_len", "must be at least 256, or null"
        if self.max_num_seqs < 1:
            yield "max_num_seqs", "must be at least 1"


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
        elif self.name not in resolve.SHIPPED and "/" not in self.name and not is_folder:
            near = get_close_matches(self.name, resolve.SHIPPED, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield "name", f"is neither {' nor '.join(resolve.SHIPPED)}, a folder nor a hub id{hint}"
        for key in ("batch_size", "batch_tokens", "attention_batch_size"):
            if getattr(self, key) < 1:
                yield key, "must be at least 1"
        if problem := _url_problem(self.engine, self.url):
            yield "url", problem
        if self.deterministic and self.engine is not EngineKind.hf:
            yield "deterministic", "works with engine=hf only; a server makes its own batches"

    def incomplete(self) -> str | None:
        """What the named folder lacks; None if nothing, or if a server has the model."""
        if self.name in resolve.SHIPPED or self.engine is EngineKind.http:
            return None
        missing = resolve.missing_part(Path(self.name).expanduser())
        return missing and f"the folder is incomplete: {missing}; copy or make it again"


def client_problems(
    config: Any, max_concurrency: int, max_timeout_s: int
) -> Iterator[tuple[str, str]]:
    """Problems of the settings that every client of a server has, as (field, rule)."""
    if not 1 <= config.max_concurrency <= max_concurrency:
        yield "max_concurrency", f"must lie between 1 and {max_concurrency}"
    if not 1 <= config.max_attempts <= 20:
        yield "max_attempts", "must lie between 1 and 20"
    if not 0 < config.timeout_s <= max_timeout_s:
        yield "timeout_s", f"must lie above 0 and at or below {max_timeout_s}"
    if not 0 <= config.backoff_s <= 60:
        yield "backoff_s", "must lie between 0 and 60"


def is_address(url: str) -> bool:
    """Whether this is an http or https address with a host and a port that can be one."""
    try:
        parts = urlsplit(url.strip())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an unclosed bracket
        return False


def _url_problem(engine: EngineKind, url: str | None) -> str | None:
    if engine is not EngineKind.http:
        return None if url is None else "is used only with model.engine=http"
    if url is None:
        return "is needed with model.engine=http, such as http://host:8000/v1"
    if not is_address(url):
        return "must be an address such as http://host:8000/v1"
    if "@" in urlsplit(url).netloc:
        return (
            "must not hold a password; put the key into the variable that server.api_key_env names"
        )
    return None
