"""The one place that chooses who answers: model.engine."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from difftrain.config.engine import EngineKind
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.generate import hf, trial, vllm
from difftrain.model.generate.request import Engine, Found, K, Request
from difftrain.model.load import Loaded


class InProcess:
    """transformers in this process; every draw's sampling noise is its own (gumbel.py)."""

    def __init__(self, loaded: Loaded, limits: hf.Limits) -> None:
        self.loaded, self.limits = loaded, limits

    @property
    def about(self) -> dict[str, Any]:
        """Seeds are honoured: the noise is a hash of them."""
        return {"engine": "hf", "seeds": "honoured"}

    def stream(
        self,
        more: Callable[[int], Sequence[tuple[K, Request]]],
        alive: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Found]]:
        """As Engine.stream: a slot that falls free takes the next request."""
        yield from hf.stream(self.loaded, more, self.limits, alive)

    def close(self) -> None:
        """Nothing to let go of; the model belongs to whoever loaded it."""


def choose(config: ModelConfig, loaded: Callable[[], Loaded], pixels: tuple[int, int]) -> Engine:
    """The engine that the settings name, ready to be asked.

    `loaded` is called only where transformers answer; `pixels` are the smallest and
    the largest picture's area.
    Raises ConfigError where the server, or vLLM, cannot serve.
    """
    if config.engine is EngineKind.http:
        return trial.server(config, pixels[1])
    if config.engine is EngineKind.vllm:
        return vllm.Vllm(config, pixels)
    return InProcess(loaded(), hf.Limits.of(config))


def greet(config: ModelConfig) -> None:
    """Raises ConfigError, within seconds, if the engine is not there. Nothing is asked yet."""
    if config.engine is EngineKind.http:
        trial.greet(config)
    elif config.engine is EngineKind.vllm and not find_spec("vllm"):
        raise ConfigError(["model.engine=vllm: vLLM is not installed; install the extra vllm"])
