"""The base model, loaded when a stage first needs it, and only once."""

from collections.abc import Callable
from functools import cached_property

from difftrain.model.load import Loaded, load
from difftrain.settings import RunConfig


class Asking:
    """Holds the model that probe and evaluation of the base share."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @cached_property
    def model(self) -> Loaded:
        """The loaded base model."""
        data = self.config.data
        return load(self.config.model, data.min_pixels, data.max_pixels)

    @property
    def loaded(self) -> Callable[[], Loaded]:
        """What a stage calls if there is something left to ask."""
        return lambda: self.model

    def release(self) -> None:
        """Forget the model, so that training has the memory."""
        self.__dict__.pop("model", None)
