"""The built wheel, installed outside the checkout, gives a working `difftrain` command."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "difftrain")
"""What the build reads from the checkout."""
pytestmark = pytest.mark.slow


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in this folder, without the checkout on Python's path; returns its stdout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    completed = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the wheel, built from a copy so that it has no files of an earlier build."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(source, *pip, "-w", target, ".")
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder bin/ of a new environment that has the wheel and this environment's libraries."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run(ROOT.parent, sys.executable, "-m", "venv", folder)
    run(folder, folder / "bin" / "pip", "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # This .pth file adds the libraries. Python ignores .pth files in a folder that is added so, and
    # thus also an editable install of difftrain there.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_contains_the_package_with_configuration_recipes_and_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    # The top-level folders are difftrain and difftrain-VERSION.dist-info.
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"difftrain"}
    files = ("conf/run.yaml", "conf/recipe/grpo_hard.yaml", "recipes/grpo.py", "py.typed")
    for name in (*files, "plan.txt.jinja"):
        assert f"difftrain/{name}" in names
    data_files = {
        f"difftrain/{path.relative_to(ROOT / 'difftrain')}"
        for folder in ("cli", "data", "evaluate", "export", "report", "shapes", "sweep", "conf")
        for path in (ROOT / "difftrain" / folder).rglob("*")
        if path.suffix in (".jinja", ".txt", ".css", ".csv", ".safetensors", ".json", ".yaml")
    }
    assert data_files <= {*names}


def test_the_installed_command_trains_and_prints_its_version(scripts: Path, tmp_path: Path) -> None:
    code = "import difftrain; print(difftrain.__file__)"
    file = Path(run(tmp_path, scripts / "python", "-c", code).strip())
    assert file.is_relative_to(scripts.parent)
    version = run(tmp_path, scripts / "difftrain", "--version")
    assert version == f"difftrain {metadata.version('difftrain')}\n"
    # debug=smoke runs the job with few samples and steps.
    arguments = ("train", "recipe=grpo_hard", "debug=smoke", "select.strata=[hard,medium,unsolved]")
    output = run(tmp_path, scripts / "difftrain", *arguments)
    folder = tmp_path / output.strip().splitlines()[-1].removeprefix("output: ")
    assert (folder / "report.html").is_file()
    assert (folder / "checkpoint" / "model.safetensors").is_file()


def test_accelerate_and_a_sweep_can_start_the_installed_module(
    scripts: Path, tmp_path: Path
) -> None:
    launch = (scripts / "python", "-m", "accelerate.commands.launch", "--num_processes", "1")
    module = ("-m", "difftrain.cli", "train", "--cfg", "job", "seed=7")
    assert "\nseed: 7\n" in run(tmp_path, *launch, *module)
    output = run(tmp_path, scripts / "difftrain", "sweep", "recipe=grpo_full", "--dry")
    assert "-m difftrain.cli train recipe=grpo_full" in output
