"""A session's model and engines are dropped before vLLM starts, and otherwise shared."""

from importlib.util import find_spec

import pytest

from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.model.loading import LoadedModel
from difftrain.pipeline.model_session import ModelSession

# Pixel limits (min_pixels, max_pixels), for each of which a session has its own engine.
SMALL_IMAGES, LARGE_IMAGES = (784, 7840), (784, 78400)


class StubEngine:
    """Replaces a started vLLM engine, which would need a GPU."""

    closed = False

    def close(self) -> None:
        self.closed = True


def session_with_engine(kind: EngineKind, tiny: LoadedModel) -> tuple[ModelSession, StubEngine]:
    """A session that has loaded the model, and its engine for SMALL_IMAGES."""
    config = RunConfig()
    config.model.engine = kind
    session, engine = ModelSession(config.model, config.data), StubEngine()
    session.__dict__["model"] = tiny  # where the cached_property `model` stores its value
    session._engines[SMALL_IMAGES] = engine  # type: ignore[assignment]
    return session, engine


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed and would start")
def test_the_model_and_other_engines_are_dropped_before_vllm_starts(tiny: LoadedModel) -> None:
    session, engine = session_with_engine(EngineKind.vllm, tiny)
    assert session.engine(*SMALL_IMAGES) is engine
    assert "model" in session.__dict__
    assert not engine.closed
    with pytest.raises(ConfigError, match="vLLM cannot be imported"):
        session.engine(*LARGE_IMAGES)
    assert engine.closed
    assert "model" not in session.__dict__


def test_engines_in_this_process_share_one_model_for_all_pixel_limits(tiny: LoadedModel) -> None:
    session, engine = session_with_engine(EngineKind.hf, tiny)
    session.engine(*LARGE_IMAGES)
    assert session.engine(*SMALL_IMAGES) is engine
    assert not engine.closed
    assert session.model is tiny
