"""What a Hydra user tries: --multirun, --config-dir, --cfg, globs and ranges, and other options."""

import subprocess
import sys
from pathlib import Path

import pytest

from difftrain.cli import hydra_options, overrides
from difftrain.cli.hydra_options import sweep_arguments, take_options
from difftrain.config.run_config import ConfigError, resolve
from difftrain.sweep import parse, plan_sweep

ROOT = Path(__file__).resolve().parents[2]


def problems_of(*arguments: str) -> list[str]:
    """The problems of options or overrides."""
    with pytest.raises(ConfigError) as caught:
        overrides.compose_config(take_options("train", list(arguments)).rest)
    return caught.value.problems


def sweep_of(*arguments: str) -> list[str]:
    """The labels of the runs that `train --multirun` with these arguments starts."""
    options = take_options("train", ["--multirun", *arguments])
    return [run.label for run in plan_sweep(parse(sweep_arguments("train", options))).runs]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """No accelerate launch, no --config-dir of an earlier test."""
    for name in ("RANK", hydra_options.LAUNCH_VARIABLE, overrides.CONFIG_DIR_VARIABLE):
        monkeypatch.setenv(name, "")  # so that the end of the test removes what it sets
        monkeypatch.delenv(name)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A folder with a recipe of the user's own."""
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\nname: mine\nselect:\n  strata: [medium]\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("seed=range(1,4)", ["1", "2", "3"]),
        ("seed=1,2", ["1", "2"]),
        ("seed=choice(3,5)", ["3", "5"]),
        ("seed=7", ["7"]),
        ("difficulty=glob(pism*)", ["pism", "pism_released"]),
        ("difficulty=glob([*],exclude=[a*,c*,i*,p*])", ["rap"]),
    ],
)
def test_ranges_choices_and_globs_of_hydra_are_expanded(argument: str, values: list[str]) -> None:
    assert overrides.sweep_values(argument) == values


def test_a_glob_without_a_match_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recipe has such a name"):
        overrides.sweep_values("recipe=glob(nothing*)")


def test_multirun_is_the_sweep(tmp_path: Path) -> None:
    labels = sweep_of("recipe=grpo_hard,grpo_mid", "seed=range(1,3)", f"output_dir={tmp_path}")
    assert sorted(labels) == ["grpo_hard-1", "grpo_hard-2", "grpo_mid-1", "grpo_mid-2"]


def test_multirun_without_a_recipe_varies_the_default_one(tmp_path: Path) -> None:
    assert sweep_of("seed=1,2", f"output_dir={tmp_path}") == ["grpo_hard-1", "grpo_hard-2"]


def test_multirun_refuses_several_values_of_a_setting_that_a_sweep_does_not_vary() -> None:
    options = take_options("train", ["-m", "grpo.learning_rate=1e-6,2e-6", "seed=1,2"])
    with pytest.raises(ConfigError, match=r"learning_rate=1e-6,2e-6: a sweep varies only recipe"):
        sweep_arguments("train", options)


@pytest.mark.parametrize("variable", ["RANK", hydra_options.LAUNCH_VARIABLE])
def test_a_process_of_accelerate_launch_starts_no_sweep(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "0")
    with pytest.raises(
        ConfigError, match=r"run python launch/train.py -m seed=1,2 accelerate=FILE"
    ):
        sweep_arguments("train", take_options("train", ["-m", "seed=1,2"]))


def test_two_values_for_one_run_name_multirun() -> None:
    for text in ("recipe=grpo_hard,grpo_mid", "seed=range(1,3)", "recipe=glob(grpo*)"):
        (problem,) = problems_of(text)
        assert problem.startswith(f"{text}: a run takes one value per setting; train -m, or sweep")


def test_recipes_of_a_config_dir_are_composed_like_those_of_conf(config_dir: Path) -> None:
    options = take_options("train", ["--config-dir", str(config_dir), "recipe=mine"])
    config = resolve(overrides.compose_config(options.rest))
    assert (config.recipe, config.name, config.select.strata) == ("mine", "mine", ["medium"])
    assert overrides.recipe_settings(config) == ["name=mine", "select.strata=[medium]"]
    assert "grpo_hard" in overrides.config_groups()["recipe"]


def test_the_runs_of_a_sweep_get_the_config_dir_too(config_dir: Path) -> None:
    take_options("train", ["-cd", str(config_dir)])
    module = "difftrain.cli.overrides"
    code = f"from {module} import compose_config; print(compose_config(['recipe=mine']).name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "mine", done.stderr


def test_a_missing_config_dir_and_an_unknown_option_are_refused_together() -> None:
    folder, option = problems_of("--config-dir=/no/such/folder", "--foo")
    assert folder == "--config-dir /no/such/folder: there is no such folder"
    assert option == "--foo: unknown option (see train --help)"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--info"], "--cfg job prints"),
        (["--hydra-help"], "--help lists the groups"),
        (["--package", "grpo"], "--cfg job prints all settings"),
        (["-cn", "other"], "write recipe=NAME"),
        (["-cp", "folder"], "--config-dir DIR adds a folder"),
        (["-sc", "install=bash"], "difftrain completion bash"),
        (["--experimental-rerun", "config.pickle"], "the same command continues a run"),
        (["--cfg", "hydra"], "use --cfg job"),
        (["hydra/launcher=submitit_slurm"], "sweep slurm=plain"),
        (["hydra.run.dir=x"], "output_dir=DIR"),
        (["~seed"], "write seed=VALUE"),
        (["+seed=2"], "write seed=VALUE"),
        (["report_to=wandb,tensorboard"], "write report_to=[wandb,tensorboard]"),
    ],
)
def test_what_differs_from_hydra_is_refused_with_what_to_use(
    arguments: list[str], advice: str
) -> None:
    (problem,) = problems_of(*arguments)
    assert advice in problem


def test_forms_of_hydra_that_mean_the_default_are_taken() -> None:
    take_options("train", ["--run", "seed=2"])
    job = overrides.compose_config(["~debug", "++seed=3", "report_to=none"])
    assert (job.seed, list(job.report_to)) == (3, [])


def test_the_resolved_settings_can_be_printed_with_a_recipe_of_a_config_dir(
    config_dir: Path,
) -> None:
    options = ["-c", "job", "--resolve", "--config-dir", str(config_dir), "recipe=mine"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "train.py"), *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "name: mine" in done.stdout


def test_one_tracker_may_be_named_without_brackets() -> None:
    assert list(overrides.compose_config(["report_to=wandb"]).report_to) == ["wandb"]
    two = overrides.compose_config(["report_to=[wandb,tensorboard]"])
    assert list(two.report_to) == ["wandb", "tensorboard"]


def test_a_tracker_that_is_named_twice_or_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (problem,) = problems_of("report_to=[wandb,wandb]")
    assert problem == "report_to=[wandb, wandb]: must not repeat"
    monkeypatch.setattr("difftrain.config.run_config.find_spec", lambda name: None)
    (problem,) = problems_of("report_to=trackio")
    assert "trackio is not installed; pip install 'difftrain[trackio]'" in problem


def test_the_settings_of_a_sweep_are_not_shown_by_starting_it() -> None:
    options = take_options("train", ["--multirun", "--cfg", "job", "recipe=grpo_full,rap"])
    with pytest.raises(ConfigError, match="--cfg shows the settings of one run"):
        sweep_arguments("train", options)
