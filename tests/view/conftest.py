"""A finished run without a model, and a client of the explorer that shows it."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from difftrain.config.run_config import RunConfig
from difftrain.view.folders import find_folders
from difftrain.view.server import Explorer
from tests.view.toy_run import write_run

TOKEN = "secret"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with 60 samples."""
    return write_run(tmp_path_factory.mktemp("view"), 60)


@pytest.fixture(scope="session")
def explorer(run: Path) -> Explorer:
    """The explorer of this run."""
    return Explorer([find_folders(run)], RunConfig())


@pytest.fixture
def client(explorer: Explorer) -> TestClient:
    """A browser that has opened the printed address."""
    browser = TestClient(explorer.app(TOKEN, {"localhost"}), base_url="http://localhost:8321")
    assert browser.get(f"/?token={TOKEN}").status_code == 200
    return browser


@pytest.fixture
def stranger(explorer: Explorer) -> TestClient:
    """A browser that does not know the token."""
    return TestClient(explorer.app(TOKEN, {"localhost"}), base_url="http://localhost:8321")
