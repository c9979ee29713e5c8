"""The base model and the engines that generate its responses, loaded once, at their first use."""

from functools import cached_property
from importlib.util import find_spec

from difftrain.config.data import DataConfig
from difftrain.config.model import EngineKind, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model import loading
from difftrain.model.engines import server_check
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Engine
from difftrain.model.engines.vllm import VllmEngine
from difftrain.model.loading import LoadedModel, load, with_pixel_budget


class ModelSession:
    """The model and the engines, which all stages that need the base model share."""

    def __init__(self, config: ModelConfig, data: DataConfig) -> None:
        self.config, self.data = config, data
        self._engines: dict[tuple[int, int], Engine] = {}
        self.is_checked = False  # whether its family was compared with transformers

    @cached_property
    def model(self) -> LoadedModel:
        """The model in this process, loaded at the first access."""
        return load(self.config, self.data.min_pixels, self.data.max_pixels)

    def engine(self, min_pixels: int | None = None, max_pixels: int | None = None) -> Engine:
        """The engine for images of min_pixels to max_pixels (default: config.data's), started once.

        It does not resize such images. Raises ConfigError if the server or vLLM fails.
        """
        pixels = min_pixels or self.data.min_pixels, max_pixels or self.data.max_pixels
        if pixels not in self._engines:
            if self.config.engine is EngineKind.http:
                engine = server_check.connect(self.config, pixels[1], self.data.side)
            elif self.config.engine is EngineKind.vllm:
                self.release()  # vLLM needs a GPU with free memory
                engine = VllmEngine(self.config, pixels)
            else:
                engine = HfEngine(with_pixel_budget(self.model, *pixels), self.config)
            self._engines[pixels] = engine
        return self._engines[pixels]

    def in_process(self) -> "ModelSession":
        """A session that generates in this process instead of on a server.

        A server has only the base weights, and a fair comparison needs one engine for all models.
        """
        if self.config.in_process is self.config:  # no server is configured
            return self
        self.close_engines()
        session = ModelSession(self.config.in_process, self.data)
        if "model" in self.__dict__:  # cached_property has stored the model there
            session.__dict__["model"] = self.model
        return session

    def check_engine(self) -> None:
        """Raise ConfigError, within seconds, if the engine is not available."""
        if self.config.engine is EngineKind.http:
            server_check.check_reachable(self.config)
        elif self.config.engine is EngineKind.vllm and not find_spec("vllm"):
            raise ConfigError(["model.engine=vllm: vLLM is not installed; install the extra vllm"])

    def close_engines(self) -> None:
        """Stop the engines. vLLM occupies most of a GPU, but other stages need this memory."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def release(self) -> None:
        """Stop the engines and drop the model, to free the memory for training or vLLM."""
        self.close_engines()
        self.__dict__.pop("model", None)
        loading.free_memory()
