"""Which model and engines a session keeps when an engine starts: vLLM needs free GPU memory."""

from importlib.util import find_spec

import pytest

from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.model.loading import LoadedModel
from difftrain.pipeline.model_session import ModelSession


class RunningEngine:
    """Stands for a started vLLM, which needs a GPU."""

    closed = False

    def close(self) -> None:
        self.closed = True


def session_with_engine(kind: EngineKind, tiny: LoadedModel) -> tuple[ModelSession, RunningEngine]:
    """A session that holds the model, as after the preflight, and an engine for one pixel range."""
    config = RunConfig()
    config.model.engine = kind
    session, engine = ModelSession(config.model, config.data), RunningEngine()
    session.__dict__["model"] = tiny
    session._engines[784, 7840] = engine  # type: ignore[assignment]
    return session, engine


@pytest.mark.skipif(find_spec("vllm") is not None, reason="would start vLLM")
def test_the_model_and_other_engines_are_dropped_before_vllm_starts(tiny: LoadedModel) -> None:
    session, engine = session_with_engine(EngineKind.vllm, tiny)
    assert session.engine(784, 7840) is engine
    assert "model" in session.__dict__
    assert not engine.closed
    with pytest.raises(ConfigError, match="vLLM cannot be imported"):
        session.engine(784, 78400)
    assert engine.closed
    assert "model" not in session.__dict__


def test_engines_in_this_process_share_one_model_for_all_pixel_limits(tiny: LoadedModel) -> None:
    session, engine = session_with_engine(EngineKind.hf, tiny)
    session.engine(784, 78400)
    assert session.engine(784, 7840) is engine
    assert not engine.closed
    assert session.model is tiny
