"""Tiny real things that many tests share: the shipped model, samples of the embedded world."""

import os

import pytest
import torch

from difftrain.config.model import Dtype, ModelConfig
from difftrain.model.load import Loaded, load
from difftrain.records import Sample
from difftrain.shapes import pool

BUDGET = (3136, 12544)


@pytest.fixture(scope="session")
def tiny() -> Loaded:
    """The shipped model, loaded as any other."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(2)
    return load(ModelConfig(name="tiny", dtype=Dtype.float32), *BUDGET)


@pytest.fixture(scope="session")
def shapes_samples() -> list[Sample]:
    """The first two dozen samples of the default pool."""
    return list(pool.samples(pool.Split.pool, 24))
