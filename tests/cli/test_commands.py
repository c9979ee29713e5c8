"""The difftrain command: its subcommands, renamed settings, shell completion and logging."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.cli import COMMANDS, OTHER_COMMANDS, completion, configure_logging
from difftrain.cli.overrides import compose_config, renamed, setting_keys
from difftrain.config.run_config import ConfigError, RunConfig
from difftrain.pipeline.coordination import World

ROOT = Path(__file__).resolve().parents[2]


def run_difftrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "difftrain.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_help_lists_every_command_and_each_but_completion_has_a_file_under_launch() -> None:
    done = run_difftrain("--help")
    assert done.returncode == 0
    lines = done.stdout.split("\n\n")[1].splitlines()  # the paragraph after the usage
    listed = [line.split()[0] for line in lines]
    assert listed == [*COMMANDS, *OTHER_COMMANDS]
    # `completion` has no file: it completes only the installed command `difftrain`.
    launchers = {path.stem for path in (ROOT / "launch").glob("*.py")}
    assert launchers == {*COMMANDS, *OTHER_COMMANDS} - {"completion"}


@pytest.mark.parametrize("command", ["train", "compare", "sweep"])
def test_help_of_a_command_shows_its_usage(command: str) -> None:
    done = run_difftrain(command, "--help")
    assert done.returncode == 0
    # The help of sweep lists its command lines instead of "usage:".
    assert "usage: difftrain" in done.stdout or "difftrain sweep" in done.stdout


def test_the_error_for_a_misspelt_command_suggests_the_nearest() -> None:
    done = run_difftrain("trian", "recipe=grpo_hard")
    assert done.returncode == 2
    assert "no command trian; did you mean train?" in done.stderr


def test_all_renamed_settings_are_reported_together_with_their_new_names() -> None:
    with pytest.raises(ConfigError) as refused:
        compose_config(
            ["artefacts=x", "grpo.kl=0.1", "select.keep=[hard]", "report.to=wandb",
             "evaluate.contamination=refuse", "probe.grid=full", "sft.targets=solution"]
        )  # fmt: skip
    assert refused.value.problems == [
        "artefacts=x: was renamed; write output_dir=x",
        "grpo.kl=0.1: was renamed; write grpo.beta=0.1",
        "select.keep=[hard]: was renamed; write select.strata=[hard]",
        "report.to=wandb: was renamed; write report_to=wandb",
        "evaluate.contamination=refuse: was renamed; write evaluate.contamination=error",
        "probe.grid=full: was renamed; write probe.until=grid",
        "sft.targets=solution: was renamed; write sft.targets=rationale",
    ]


def test_renamed_settings_exist_only_under_their_new_names() -> None:
    keys = {*setting_keys(RunConfig())}
    assert {*renamed()["keys"].values()} <= keys
    assert not {*renamed()["keys"]} & keys
    assert {*renamed()["values"]} <= keys


def bash_completions(line: str) -> list[str]:
    """What bash offers if TAB is pressed at the end of the line."""
    word_index = len(line.split(" ")) - 1
    lines = [
        completion(["bash"]),
        "compopt() { :; }",  # the built-in works only while bash completes
        f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD={word_index}; _difftrain',
        'echo "${COMPREPLY[*]}"',
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_completion_offers_commands_groups_and_settings_keys() -> None:
    assert bash_completions("difftrain pro") == ["probe"]
    assert bash_completions("difftrain train difficulty.pism.ta") == ["difficulty.pism.tau="]
    recipes = ["grpo_mid", "grpo_mid_hard", "grpo_mid_hard_rounds"]
    assert bash_completions("difftrain train recipe=grpo_mid") == recipes
    assert bash_completions("difftrain train control=") == ["none", "random"]
    assert bash_completions("difftrain train report_to=w") == ["wandb"]
    assert bash_completions("difftrain train --mul") == ["--multirun"]


def test_completion_for_an_unknown_shell_is_refused() -> None:
    done = run_difftrain("completion", "fish")
    assert done.returncode == 2
    assert "must be one of: bash, zsh" in done.stderr
    assert run_difftrain("completion", "zsh").stdout.startswith("#compdef difftrain")


@pytest.mark.parametrize(
    ("rank", "verbose", "level"),
    [(0, False, logging.INFO), (1, False, logging.WARNING), (1, True, logging.DEBUG)],
)
def test_the_log_level_is_info_on_the_first_rank_and_warning_on_the_others(
    rank: int, verbose: bool, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("difftrain")
    # Setting the attributes to their own values makes monkeypatch restore them after the test.
    for name in ("level", "handlers", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    configure_logging(World(rank, 2), verbose)  # one of two ranks
    assert logger.level == level
    (handler,) = logger.handlers
    record = logging.LogRecord("difftrain.probe", logging.INFO, "", 0, "%d left", (3,), None)
    assert f"INFO rank {rank} difftrain.probe: 3 left" in handler.format(record)


def test_printed_and_logged_lines_reach_a_file_immediately_and_in_order(tmp_path: Path) -> None:
    code = (
        "import logging, os; from difftrain.cli import configure_logging;"
        "from difftrain.pipeline.coordination import World;"
        "configure_logging(World(), False); print('table');"
        "logging.getLogger('difftrain.x').info('first'); os._exit(1)"  # exits without a flush
    )
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, stderr=log, env=os.environ)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "table"
    assert lines[1].endswith("INFO difftrain.x: first")
