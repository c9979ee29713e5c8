"""The frame of every launcher: settings, run, exit code.

Exit codes: 0 done, 1 failed, 2 bad settings or bad input. Settings are checked before anything
that imports torch is imported.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from launch.words import groups, read, recipe_difference
from omegaconf import OmegaConf

from difftrain.config.run_config import ConfigError, RunConfig, checked
from difftrain.data.quarantine import EmptyDatasetError
from difftrain.pipeline.coordination import FirstRankFailed, RankTimeout, World
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.select.strata import EmptySelectionError
from difftrain.train.ticks import PreflightFailed

USAGE = """\
usage: {program} [KEY=VALUE ...] [--cfg job]

groups (GROUP=NAME):
{groups}
common: output_dir=DIR seed=N name=NAME control=random data.limit=N
every key with its default: {program} --cfg job"""

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
THREADS = "DIFFTRAIN_THREADS"
PATIENT = {"GOMP_SPINCOUNT": "20000"}
"""Threads spin only for a moment before they sleep: for ever starves them where cores are shared,
not at all halves the speed where they are not."""


def fail(message: str, code: int, everywhere: bool = False) -> None:
    """Say why and stop. What all ranks share is said by the first; `everywhere`, by each."""
    world = World.from_environment()
    if world.is_first or everywhere:
        speaker = f"rank {world.rank}: " if world.size > 1 and everywhere else ""
        print(f"{speaker}{message}", file=sys.stderr, flush=True)
    sys.exit(code)


def settings_of(words: list[str], trains: bool = False) -> RunConfig:
    """The checked settings of a command line, or the end of the program with help or code 2.

    Whether the processes can share a step is asked of what trains alone.
    """
    program = Path(sys.argv[0]).name
    if any(word in ("-h", "--help") for word in words):
        lines = [f"  {name:<12}{' '.join(names)}" for name, names in groups().items()]
        print(USAGE.format(program=program, groups="\n".join(lines)))
        sys.exit(0)
    show = "--cfg" in words
    if show:
        place = words.index("--cfg")
        words = [*words[:place], *words[place + 2 :]]
    if flags := [word for word in words if word.startswith("-") and "=" not in word]:
        fail(f"{program}: unknown option {' '.join(flags)} (see {program} --help)", 2)
    try:
        job = read(words)
        if show:
            print(OmegaConf.to_yaml(job), end="")
            sys.exit(0)
        config = checked(OmegaConf.to_object(job))  # pyright: ignore[reportArgumentType]
        if trains and (troubles := config.uneven(World.from_environment().size)):
            raise ConfigError(troubles)
        return config
    except ConfigError as error:
        fail(f"ConfigError: {error}", 2)
        raise


def use_all_cores(world: World) -> None:
    """Give a lone process all cores: accelerate launch sets one thread unless it is told more.

    A sweep that starts several runs at once says how many each may have (THREADS). Must run before
    torch is imported, which reads the number once.
    """
    if given := os.environ.get(THREADS):
        os.environ["OMP_NUM_THREADS"] = given
        return
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    if world.size == 1 and by_accelerate and os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)


def launch(target: str, trains: bool = False) -> None:
    """Run `module:function` with checked settings; the last line on stdout is `output: FOLDER`."""
    config = settings_of(sys.argv[1:], trains)
    world = World.from_environment()
    use_all_cores(world)
    for name, value in {**QUIET, **PATIENT}.items():
        os.environ.setdefault(name, value)
    module, name = target.split(":")
    run: Callable[..., Path] = getattr(importlib.import_module(module), name)
    try:
        folder = run(config, world, recipe_difference(config))
    except ConfigError as error:
        fail(f"ConfigError: {error}", 2)
    except (EmptyDatasetError, EmptySelectionError, MissingArtifact, SchemaError) as error:
        fail(f"{type(error).__name__}: {error}", 2, everywhere=True)
    except PreflightFailed as error:
        fail(f"PreflightFailed: {error}", 1, everywhere=True)
    except FirstRankFailed as error:
        fail(str(error), 1, everywhere=True)
    except (OSError, RankTimeout, TimeoutError) as error:
        fail(f"{type(error).__name__}: {error}\nthe same command continues from here", 1, True)
    except KeyboardInterrupt:
        fail("interrupted; the same command continues from here", 1)
    else:
        if world.is_first:
            print(f"output: {folder}", flush=True)
