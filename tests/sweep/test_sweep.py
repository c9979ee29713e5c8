"""Sweeps: the runs they expand to, bad arguments, resuming, and the SLURM scripts.

A sweep runs several recipes (settings files such as grpo_hard) and compares them in a table with a
row for each. A run's probe is the set of responses that measure the difficulty of its samples. A
random control is a second model, which is trained on as many random samples.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from difftrain import sweep as sweep_module
from difftrain.cli.overrides import compose_config
from difftrain.config.evaluate import SETS
from difftrain.config.model import EngineKind
from difftrain.config.run_config import ConfigError, resolve
from difftrain.pipeline.paths import RunPaths
from difftrain.report.compare.presets import PAPER_ROWS, RAP_BENCHMARKS
from difftrain.sweep import expand, local_launcher, slurm, slurm_options
from difftrain.sweep.expand import TABLES, SweepRun, SweepTable
from difftrain.sweep.slurm import SlurmRequest
from tests.sweep.fake_slurm import TASK_VARIABLES

ROOT = Path(__file__).resolve().parents[2]


def sweep(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run launch/sweep.py in a process without GPUs."""
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "sweep.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )


def expand_runs(*arguments: str, **axes: str) -> list[SweepRun]:
    """The runs of a sweep over these axes, such as seed="1,2", with these overrides."""
    axis_values = {axis: values.split(",") for axis, values in axes.items()}
    table = SweepTable(recipes=(), seeds=("1",))
    return expand.expand(expand.sweep_axes(axis_values, table), table, list(arguments))


def problems_of(*arguments: str, **axes: str) -> list[str]:
    """The problems for which a sweep is refused."""
    with pytest.raises(ConfigError) as error_info:
        expand_runs(*arguments, **axes)
    return error_info.value.problems


def sweep_plan(runs: list[SweepRun], folder: Path, at_a_time: int = 1) -> local_launcher.SweepPlan:
    return local_launcher.SweepPlan(
        name="x", folder=folder, runs=runs, at_a_time=at_a_time, accelerate=None
    )


def plan_of(*arguments: str) -> local_launcher.SweepPlan:
    """The plan that the command line with these arguments makes."""
    return sweep_module.plan_sweep(sweep_module.parse(list(arguments)))


def write_finished_run(run: SweepRun) -> Path:
    """Write the files by which a sweep recognizes a finished run; returns the run's folder."""
    folder = run.paths.run
    shutil.copytree(ROOT / "difftrain" / "shapes" / "tiny", folder / "checkpoint")
    (folder / "report.json").write_text("{}")
    return folder


def test_a_run_whose_checkpoint_is_incomplete_is_not_finished(tmp_path: Path) -> None:
    (run,) = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1")
    assert not run.is_finished()
    weights = write_finished_run(run) / "checkpoint" / "model.safetensors"
    assert run.is_finished()
    weights.write_bytes(weights.read_bytes()[:-1])  # one byte is missing
    assert not run.is_finished()
    weights.unlink()
    assert not run.is_finished()


def test_a_sweep_has_a_run_for_every_combination_of_recipe_difficulty_and_seed() -> None:
    runs = expand_runs("data.limit=50", recipe="grpo_hard,grpo_full", difficulty="pism,cmab",
                       seed="1,2,3")  # fmt: skip
    assert len(runs) == len({run.label for run in runs}) == 12
    assert len({run.paths.run for run in runs}) == 12
    for run in runs:
        recipe, measure, seed = run.label.split("-")
        assert (run.config.name, run.config.seed) == (recipe, int(seed))
        assert run.config.difficulty.measure == measure
        assert run.config.data.limit == 50
        assert resolve(compose_config(list(run.overrides))) == run.config


def test_the_first_runs_have_different_probes() -> None:
    # Two seeds need two probes.
    runs = expand_runs(recipe="grpo_full,grpo_random", difficulty="pism,cmab", seed="1,2")
    probes = [run.paths.probe for run in runs]
    assert len(set(probes[:2])) == 2
    assert set(probes[2:]) == set(probes[:2])
    assert [run.probe_key for run in runs[:2]] == list(dict.fromkeys(run.probe_key for run in runs))


def test_a_recipe_with_its_own_probe_comes_before_recipes_that_share_a_probe() -> None:
    # rap needs other responses than grpo_full and grpo_random, which share a probe.
    runs = expand_runs(recipe="grpo_full,grpo_random,rap")
    assert [run.label for run in runs] == ["grpo_full-1", "rap-1", "grpo_random-1"]


def test_runs_with_equal_probe_keys_have_the_same_probe_folder() -> None:
    runs = expand_runs(recipe="grpo_full,grpo_hard", difficulty="pism,all", seed="1,2")
    folders_by_key: dict[str, set[Path]] = {}
    for run in runs:
        folders_by_key.setdefault(run.probe_key, set()).add(run.paths.probe)
    assert all(len(folders) == 1 for folders in folders_by_key.values())


def test_a_random_control_is_trained_unless_another_row_of_the_sweep_is_the_control() -> None:
    runs = expand_runs(recipe="grpo_unsolved,grpo_hard,grpo_mid_hard,grpo_full")
    controls = {run.config.name: run.config.control for run in runs}
    assert controls == {
        "grpo_unsolved": "random", "grpo_hard": "random", "grpo_mid_hard": "random",
        "grpo_full": "none",
    }  # fmt: skip
    assert expand_runs("control=none", recipe="grpo_hard")[0].config.control == "none"
    with_random_row = expand_runs(recipe="grpo_mid_hard,grpo_random")
    assert [run.config.control for run in with_random_row] == ["none", "none"]
    controls_of_rows = {row.control for row in PAPER_ROWS if row.control}
    assert controls_of_rows.issubset(TABLES["paper"].recipes)


def test_the_command_line_replaces_the_overrides_of_a_table() -> None:
    table = TABLES["shapes"]
    axes = expand.sweep_axes({"recipe": ["grpo_full"]}, table)  # replaces the table's recipes
    assert axes["seed"] == ["1", "2"]  # the seeds of the table
    (first, _) = expand.expand(axes, table, [])
    assert first.config.grpo.max_steps == 20  # an override of the table
    (first, _) = expand.expand(axes, table, ["grpo.max_steps=3"])
    assert first.config.grpo.max_steps == 3


def test_both_tables_have_twelve_rows() -> None:
    """The rows of every table in Qi et al. 2026."""
    assert len(TABLES["paper"].recipes) == len(TABLES["shapes"].recipes) == 12


def test_the_rap_table_has_six_rows_that_share_one_probe_and_their_benchmarks(
    tmp_path: Path,
) -> None:
    runs = plan_of("table=rap", "seed=1", f"output_dir={tmp_path}").runs
    # The rows of RAP's Table 1 and ablation: full data, random, RAP, CDE, ACE, CDE and ACE.
    assert [run.config.name for run in runs] == [
        "grpo_full", "rap_random", "rap", "rap_cde", "rap_ace", "rap_cde_ace",
    ]  # fmt: skip
    assert len({run.probe_key for run in runs}) == len({run.paths.probe for run in runs}) == 1
    assert {run.config.difficulty.measure for run in runs} == {"drm"}
    benchmarks = list(runs[0].config.evaluate.benchmarks)
    assert all(run.config.evaluate.benchmarks == benchmarks for run in runs)
    assert benchmarks == list(SETS["shapes/rap"])
    assert set(benchmarks) == {f"shapes/{name}" for name in RAP_BENCHMARKS}
    # rap_random is RAP's control; the ablation's rows have other sizes and train their own.
    own_controls = [run.config.name for run in runs if run.config.control == "random"]
    assert own_controls == ["rap_cde", "rap_ace", "rap_cde_ace"]
    selects = {run.config.name: run.config.select for run in runs}
    assert selects["rap_random"].random
    assert selects["rap_random"].rap == selects["rap"].rap == ["cde", "ace", "drm"]


def test_the_command_line_replaces_the_measure_and_the_benchmarks_of_the_rap_table(
    tmp_path: Path,
) -> None:
    benchmarks = "evaluate.benchmarks=[shapes/MMMU]"
    runs = plan_of("table=rap", "difficulty=all", benchmarks, f"output_dir={tmp_path}").runs
    assert len(runs) == 6
    for run in runs:
        assert run.config.difficulty.measure == "pism"  # of difficulty=all
        assert run.config.evaluate.benchmarks == ["shapes/MMMU"]
        assert [text for text in run.overrides if text.startswith("difficulty=")] == [
            "difficulty=all"
        ]


def test_all_problems_of_all_runs_are_reported_before_a_run_starts(tmp_path: Path) -> None:
    started_at = time.monotonic()
    result = sweep("table=papr", "recipe=grpo_full,grpo_hrd", "seed=1,1,x", "jobs=0", "name=a",
                   "slurm.partion=x", "sweep=a/b", "data.limt=3", "grpo.num_generations=1", "-m",
                   f"output_dir={tmp_path}")  # fmt: skip
    assert result.returncode == 2
    assert time.monotonic() - started_at < 20  # 3 s on an idle machine
    for problem in (
        "table=papr: there is no such table; did you mean paper?",
        "recipe=grpo_hrd: there is no recipe of that name; did you mean grpo_hard?",
        "seed=x: Value 'x' of type 'str' could not be converted to Integer",
        "seed=1: is named twice",
        "jobs=0: must be a number above 0",
        "name=a: runs of a sweep are named after their recipes; sweep=NAME names the sweep",
        "slurm.partion=x: sbatch has no such option; did you mean partition?",
        "sweep=a/b: may hold letters, digits, '.', '_' and '-' only",
        "data.limt=3: there is no setting data.limt; did you mean data.limit?",
        "grpo.num_generations=1: GRPO needs at least two completions to compare",
        "-m: neither of the form KEY=VALUE nor an option (see --help)",
    ):
        assert problem in result.stderr
    assert "output:" not in result.stdout
    assert not list(tmp_path.iterdir())


def test_an_error_names_the_runs_that_have_the_problem() -> None:
    (problem,) = problems_of(recipe="grpo_full,rap", difficulty="pism,cmab")
    assert problem.startswith(
        "select.rap=[cde, ace, drm]: needs cde, ace, drm in difficulty.extra_measures"
    )
    assert problem.endswith("(rap-pism, rap-cmab)")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recipe=grpo_mid_hard", "difficulty=pism,pism_released"],
         ["probe.mask: pixels and rectangle: cannot be compared in one table (grpo_mid_hard-pism"]),
        (["recipe=grpo_full,grpo_hard", "difficulty=pism,all", "seed=1,2"],
         ["difficulty.extra_measures: ['cmab'] and ['cmab', 'cde', 'ace', 'drm']: cannot be "
          "compared in one table (grpo_full-all, grpo_hard-all)"]),
        (["recipe=grpo_random,grpo_mid_hard", "select.random=true"],
         ["select.random: False according to its name, but True: cannot be compared in one table "
          "(grpo_mid_hard); to select differently, add a recipe of your own, conf/recipe/"]),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused_before_a_run_starts(
    arguments: list[str], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as error_info:
        plan_of(*arguments)
    problems = error_info.value.problems
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_tables_with_sft_on_probe_responses_and_with_rap_can_be_planned(tmp_path: Path) -> None:
    arguments = ["table=paper", "difficulty=pism,cmab", "seed=1,2", "sft.targets=rollouts",
                 f"output_dir={tmp_path}"]  # fmt: skip
    assert len(plan_of(*arguments).runs) == 12 * 2 * 2  # rows, measures and seeds
    with_rap = ["recipe=grpo_hard,rap,rap_cde,sft_mid_grpo_hard", "sft.targets=rollouts",
                f"output_dir={tmp_path}"]  # fmt: skip
    assert len(plan_of(*with_rap).runs) == 4


def test_a_sweep_without_rows_is_refused() -> None:
    result = sweep("seed=1,2")
    assert result.returncode == 2
    assert "a sweep needs table=paper, table=rap, table=shapes or recipe=A,B" in result.stderr


def test_the_sweep_module_imports_neither_torch_nor_pandas_nor_scipy() -> None:
    code = (
        "import sys, difftrain.sweep; sys.exit(bool({'torch', 'pandas', 'scipy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_dry_prints_one_accelerate_launch_per_run_and_starts_nothing(tmp_path: Path) -> None:
    arguments = ("recipe=grpo_full,grpo_random", "seed=1,2", f"output_dir={tmp_path}", "jobs=2")
    (first, *_) = expand_runs(arguments[2], recipe="grpo_full", seed="1,2")
    write_finished_run(first)
    result = sweep(*arguments, "--dry")
    assert result.returncode == 0, result.stderr
    commands = [line for line in result.stdout.splitlines() if "accelerate.commands.launch" in line]
    assert len(commands) == 4
    assert all("--num_processes 1" in line and "launch/train.py" in line for line in commands)
    assert "grpo_full-1: finished" in result.stdout
    assert "grpo_full-2: to do" in result.stdout
    assert not (tmp_path / "sweep").exists()


def test_finished_runs_are_not_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    for run in runs:
        write_finished_run(run)
    local_launcher.run_all(sweep_plan(runs, tmp_path / "sweep"))
    assert "2 runs, 2 finished earlier" in capsys.readouterr().out
    assert not (tmp_path / "sweep").exists()
    assert RunPaths(runs[0].config).run == runs[0].paths.run


def test_parallel_runs_share_cores_and_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = expand_runs(recipe="grpo_full", seed="1,2,3,4")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)}, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    two_at_a_time = sweep_plan(runs, tmp_path, at_a_time=2)
    shares = [local_launcher.environment(two_at_a_time, slot) for slot in (0, 1)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4", "5"]
    assert [share["DIFFTRAIN_THREADS"] for share in shares] == ["4", "4"]
    # A run that is not parallel gets all cores, but still one GPU.
    single = local_launcher.environment(sweep_plan(runs, tmp_path), 0)
    assert (single["CUDA_VISIBLE_DEVICES"], single["DIFFTRAIN_THREADS"]) == ("4", "8")
    with pytest.raises(ConfigError, match="needs 5 GPUs, but there are 4; use at most jobs=4"):
        local_launcher.check_gpus(sweep_plan(runs, tmp_path, at_a_time=5))


def test_a_run_gets_as_many_gpus_as_its_vllm_engine_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = expand_runs(recipe="grpo_full", seed="1,2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    for run in runs:
        run.config.model.engine, run.config.model.vllm.tensor_parallel_size = EngineKind.vllm, 2
    second_run = local_launcher.environment(sweep_plan(runs, tmp_path, at_a_time=2), slot=1)
    assert second_run["CUDA_VISIBLE_DEVICES"] == "6,7"
    with pytest.raises(ConfigError, match="jobs=3: at 2 GPUs per run this needs 6 GPUs"):
        local_launcher.check_gpus(sweep_plan(runs, tmp_path, at_a_time=3))


def test_mig_devices_are_not_counted_as_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The output of nvidia-smi -L for one GPU that is divided into MIG devices.
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g Device 0: (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_launcher.available_gpus() == ["0"]


def test_with_dry_or_table_the_number_of_gpus_is_not_checked(tmp_path: Path) -> None:
    arguments = ("recipe=grpo_full", "jobs=9", f"output_dir={tmp_path}")
    assert sweep(*arguments, "--dry", CUDA_VISIBLE_DEVICES="0").returncode == 0
    # Exit code 1, because no run is finished; 2 would be bad settings.
    assert sweep(*arguments, "--table", CUDA_VISIBLE_DEVICES="0").returncode == 1
    result = sweep(*arguments, CUDA_VISIBLE_DEVICES="0")
    assert result.returncode == 2
    assert "at most jobs=1" in result.stderr


def test_the_sweep_commands_in_the_docs_accept_recipes_with_sft() -> None:
    for name in ("README.md", "difftrain/sweep/README.md", "docs/wandb.md"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        lines = re.findall(
            r"^(?:difftrain sweep|python launch/sweep.py) (.*table=paper.*)$", text, re.MULTILINE
        )
        assert lines, name
        for line in lines:
            parsed = sweep_module.parse(shlex.split(line, comments=True))
            axes = expand.sweep_axes(
                parsed.axes | {"recipe": ["sft_mid_grpo_hard"]}, TABLES["paper"]
            )
            assert expand.expand(axes, TABLES["paper"], parsed.overrides)


def test_the_shapes_table_runs_as_many_parallel_jobs_as_fit_on_cores_and_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)}, raising=False)
    arguments = ("table=shapes", "recipe=grpo_full", f"output_dir={tmp_path}")
    # Without GPUs, one job per core; with GPUs, one job per GPU.
    for visible_gpus, num_jobs in {"": 8, "0": 1, "0,1,2": 3}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible_gpus)
        plan = plan_of(*arguments)
        assert plan.at_a_time == num_jobs
        local_launcher.check_gpus(plan)
    assert plan_of(*arguments, "jobs=5").at_a_time == 5
    assert plan_of("recipe=grpo_full", arguments[2]).at_a_time == 1


def test_the_completions_of_a_step_must_be_divisible_by_the_number_of_processes(
    tmp_path: Path,
) -> None:
    file = ROOT / "launch" / "accelerate" / "zero2_cpu.yaml"  # two processes
    uneven = ("recipe=grpo_full", "grpo.prompts_per_step=3", "grpo.num_generations=3",
           f"output_dir={tmp_path}")  # fmt: skip
    with pytest.raises(ConfigError, match=r"number of processes \(2\)"):
        plan_of(*uneven, f"accelerate={file}")
    with pytest.raises(ConfigError, match=r"number of processes \(4\)"):
        plan_of(*uneven, f"accelerate={file}", "slurm.nodes=2")  # twice two processes
    assert plan_of(*uneven, f"accelerate={file}", "--table")  # starts no run, so no check


def test_the_number_of_processes_comes_from_accelerates_configuration(tmp_path: Path) -> None:
    runs = expand_runs(recipe="grpo_full")
    file = ROOT / "launch" / "accelerate" / "zero3.yaml"  # eight processes
    plan = local_launcher.SweepPlan(
        name="x", folder=tmp_path, runs=runs, at_a_time=2, accelerate=file
    )
    assert plan.num_processes == 8
    command = local_launcher.command(plan, runs[0])
    assert command[command.index("--config_file") + 1] == str(file)
    assert command[command.index("--main_process_port") + 1] == "0"  # any free port


def test_last_lines_are_from_the_last_start_and_shorten_progress_bars_and_tracebacks(
    tmp_path: Path,
) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"start\nstep 1\rstep 2\rstep 3\n\nOSError: disk is full\n")
    assert local_launcher.last_lines(log) == ["start", "step 3", "OSError: disk is full"]
    assert local_launcher.failure_reason(1, log) == "exit code 1"
    with log.open("ab") as file:
        file.write(b"\n=== now: again\nother words\n")
    assert local_launcher.last_lines(log) == ["now: again", "other words"]
    # accelerate launch prints a traceback of its own after the error of a run.
    frames = '  File "x/accelerate/commands/launch.py", line 9\nsubprocess.CalledProcessError: no\n'
    log.write_text(f"NotADirectoryError: why\nTraceback (most recent call last):\n{frames}")
    assert local_launcher.last_lines(log) == ["NotADirectoryError: why"]
    log.write_text(
        "EmptySelectionError: select.strata leaves 1 samples\naccelerate: exit status 2\n"
    )
    assert local_launcher.failure_reason(1, log) == "refused (bad settings or input)"


def test_a_run_that_cannot_start_is_reported_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    write_finished_run(good)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    plan = sweep_plan([good, bad], tmp_path / "sweep")
    local_launcher.run_all(plan)
    printed = capsys.readouterr().out
    assert "[1/1] grpo_full-2: FAILED" in printed
    assert str(plan.log(bad)) in printed
    status = json.loads((tmp_path / "sweep" / "status.json").read_text())
    assert status["grpo_full-2"]["finished"] is False
    # Even with a report and a checkpoint, a run is not finished if its last start failed.
    write_finished_run(bad)
    assert local_launcher.unfinished_runs(plan) == [bad]
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        sweep_module.finish(plan, tmp_path)
    assert exit_info.value.code == 1
    assert "1 of 2 runs are not finished: grpo_full-2" in capsys.readouterr().err


def test_processor_time_is_recorded_for_each_of_two_runs_that_end_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both runs end within one poll, because this loop takes less than 1.5 s.
    busy_loop = tmp_path / "busy_loop"
    busy_loop.write_text("#!/bin/bash\nfor ((n = 0; n < 100000; n++)); do :; done\n")
    busy_loop.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(busy_loop))
    monkeypatch.setattr(local_launcher, "POLL_SECONDS", 1.5)
    runs = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    local_launcher.run_all(sweep_plan(runs, tmp_path / "sweep", at_a_time=2))
    status = json.loads((tmp_path / "sweep" / "status.json").read_text())
    assert all(outcome["processor_seconds"] > 0 for outcome in status.values()), status


def test_slurm_submits_the_shared_probes_then_the_runs_then_the_table(
    tmp_path: Path, sbatch_record: Path
) -> None:
    result = sweep("recipe=grpo_full,grpo_random", "seed=1,2", "jobs=3", "slurm=plain",
                   "slurm.partition=gpu", "slurm.gpus-per-node=1", "slurm.exclusive=",
                   "slurm.comment=two words", "slurm.table.time=10",
                   "data.tasks=[ocr, counting]", f"output_dir={tmp_path}/a b")  # fmt: skip
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip().splitlines()[-1].removeprefix("output: "))
    lines = sbatch_record.read_text().splitlines()
    without_folders = [re.sub(r"/\S.*/", "", line) for line in lines]
    assert without_folders == [
        "--parsable --array=0-1%3 run.sbatch 0",  # %3: at most three at a time (jobs=3)
        "--parsable --dependency=afterany:1 --array=0-3%3 run.sbatch 2",
        "--parsable --dependency=afterany:1:2 table.sbatch",
    ]
    script = (folder / "run.sbatch").read_text()
    assert "#SBATCH --partition=gpu\n" in script
    assert "#SBATCH --exclusive\n" in script
    assert "#SBATCH --comment='two words'\n" in script
    table_script = (folder / "table.sbatch").read_text()
    assert "gpus" not in table_script
    assert "#SBATCH --partition=gpu\n" in table_script
    assert "#SBATCH --time=10\n" in table_script
    assert "--time" not in script
    environment = {**os.environ, **TASK_VARIABLES, "SLURM_ARRAY_TASK_ID": "3"}
    task = subprocess.run(["bash", str(folder / "run.sbatch"), "2"], env=environment, text=True,
                          capture_output=True)  # fmt: skip
    printed = (folder / "slurm-4000_3.out").read_text()
    assert task.returncode == 0, printed + task.stderr
    assert printed.splitlines()[-1] == "grpo_random-2: done"
    arguments = Path(f"{sbatch_record}.srun").read_text().splitlines()
    start = arguments.index("train") + 1
    assert arguments[start:] == ["recipe=grpo_random", "data.tasks=[ocr, counting]",
                                 f"output_dir={tmp_path}/a b", "seed=2"]  # fmt: skip
    variables = Path(f"{sbatch_record}.env").read_text().splitlines()
    # port: 29500 and the last three digits of the job id, 4007; total: processes on both nodes.
    assert {"host=node7", "total=2", "port=29507"} <= {*variables}
    for name in ("run.sbatch", "table.sbatch"):
        # -n: check the syntax only
        assert subprocess.run(["bash", "-n", str(folder / name)]).returncode == 0


def test_slurm_skips_finished_runs(tmp_path: Path, sbatch_record: Path) -> None:
    runs = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    write_finished_run(runs[0])
    plan = sweep_plan(runs, tmp_path / "s")
    slurm.submit(plan, SlurmRequest())
    # Only one run is left; task 0 reads its arguments from 0.args.
    assert [path.name for path in (tmp_path / "s" / "jobs").glob("*/*")] == ["0.args"]
    assert sbatch_record.read_text().splitlines()[0].startswith("--parsable --array=0-0 ")


def test_a_second_submission_does_not_change_the_files_of_waiting_tasks(
    tmp_path: Path, sbatch_record: Path
) -> None:
    runs = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    plan = sweep_plan(runs, tmp_path / "s")
    slurm.submit(plan, SlurmRequest())
    (waiting_task,) = (tmp_path / "s" / "jobs").glob("*/1.args")
    arguments = waiting_task.read_text()
    first_script = (tmp_path / "s" / "run.sbatch").read_text()
    write_finished_run(runs[0])
    slurm.submit(plan, SlurmRequest())
    assert str(waiting_task.parent) in first_script
    assert str(waiting_task.parent) not in (tmp_path / "s" / "run.sbatch").read_text()
    assert waiting_task.read_text() == arguments
    assert len(list((tmp_path / "s" / "jobs").iterdir())) == 2  # a folder per submission


def test_a_finished_run_whose_last_start_failed_is_submitted_again(
    tmp_path: Path, sbatch_record: Path
) -> None:
    runs = expand_runs(f"output_dir={tmp_path}", recipe="grpo_full", seed="1,2")
    plan = sweep_plan(runs, tmp_path / "s")
    for run in runs:
        write_finished_run(run)
    plan.folder.mkdir()
    (plan.folder / "status.json").write_text('{"grpo_full-2": {"finished": false}}')
    slurm.submit(plan, SlurmRequest())
    (task,) = (tmp_path / "s" / "jobs").glob("*/*.args")
    assert task.read_text().startswith("grpo_full-2\n")
    # The submission has removed the failure from status.json.
    assert local_launcher.unfinished_runs(plan) == []


def test_a_task_can_start_a_python_whose_path_has_a_space(
    tmp_path: Path, sbatch_record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "a b" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$RECORD.python"; echo output: x\n')
    python.chmod(0o755)
    # An srun that drops its two options and runs the command.
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\nshift 2\nexec "$@"\n')
    monkeypatch.setattr(sys, "executable", str(python))
    config = tmp_path / "a b" / "ddp.yaml"
    config.write_text("num_processes: 1\n")
    runs = expand_runs(f"output_dir={tmp_path}", "data.tasks=[ocr, counting]", recipe="grpo_full")
    plan = local_launcher.SweepPlan(
        name="x", folder=tmp_path / "s s", runs=runs, at_a_time=1, accelerate=config
    )
    slurm.submit(plan, SlurmRequest())
    script = str(plan.folder / "run.sbatch")
    variables = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_NUM_NODES": "1"}
    environment = {**os.environ, **TASK_VARIABLES, **variables}
    subprocess.run(["bash", script, "0"], env=environment, text=True, capture_output=True)
    arguments = Path(f"{sbatch_record}.python").read_text().splitlines()
    assert arguments[:4] == ["-m", "accelerate.commands.launch", "--config_file", str(config)]
    assert arguments[-4:] == ["recipe=grpo_full", f"output_dir={tmp_path}",
                              "data.tasks=[ocr, counting]", "seed=1"]  # fmt: skip


def test_the_run_folder_depends_on_the_benchmark_items_and_on_the_judge_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "MMStar.tsv"
    file.write_text("index\n1\n")
    monkeypatch.setenv("JUDGE_BASE_URL", "https://one/v1")
    monkeypatch.setenv("JUDGE_MODEL", "judge")
    arguments = ("evaluate.benchmarks=[MMStar]", "evaluate.source=tsv", "evaluate.judge=endpoint")

    def run_folder(path: Path) -> Path:
        return expand_runs(*arguments, f"evaluate.path={path}", recipe="grpo_full")[0].paths.run

    first = run_folder(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / file.name).write_text("index\n1\n")
    assert run_folder(copy) == first
    monkeypatch.setenv("JUDGE_BASE_URL", "https://two/v1")
    other_judge = run_folder(tmp_path)
    file.write_text("index\n1\n2\n")
    assert len({first, other_judge, run_folder(tmp_path)}) == 3


def test_dry_prints_the_scripts_on_a_machine_without_sbatch(tmp_path: Path) -> None:
    arguments = ("recipe=grpo_full", "slurm=plain", f"output_dir={tmp_path}")
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(name for name in folders if not (Path(name) / "sbatch").exists())
    result = sweep(*arguments, "--dry", PATH=path)
    assert result.returncode == 0, result.stderr
    assert "#SBATCH --job-name=difftrain-rows" in result.stdout
    assert "sbatch --parsable --array=0-0 " in result.stdout
    assert not (tmp_path / "sweep").exists()
    result = sweep(*arguments, PATH=path)
    assert result.returncode == 2
    assert "there is no sbatch on this machine; --dry prints the scripts" in result.stderr


def test_sbatch_options_that_the_sweep_sets_itself_are_refused() -> None:
    (problem,) = slurm_options.option_problems({"array": "1-3"})
    assert "is set by the sweep" in problem
    assert slurm_options.option_problems({"time": "1-00", "gres": "gpu:8"}) == []


@pytest.mark.slow
def test_a_sweep_with_a_failing_run_writes_the_table_and_can_be_resumed(tmp_path: Path) -> None:
    arguments = ("recipe=grpo_full,grpo_random,grpo_unsolved", "seed=1", "debug=smoke",
                 "control=none", f"output_dir={tmp_path}", "jobs=2")  # fmt: skip
    settings = arguments[2:5]  # without recipe, seed and jobs
    runs = expand_runs(*settings, recipe="grpo_full,grpo_random,grpo_unsolved")
    blocking_file = runs[2].paths.grpo("tuned")
    blocking_file.parent.mkdir(parents=True)
    blocking_file.write_text("a file where a folder must be")
    result = sweep(*arguments)
    assert result.returncode == 1
    assert "grpo_full-1: done in" in result.stdout
    assert "grpo_random-1: done in" in result.stdout
    assert "grpo_unsolved-1: FAILED" in result.stdout
    assert "FileExistsError" in result.stdout
    assert "1 of 3 runs are not finished: grpo_unsolved-1" in result.stderr
    first = Path(result.stdout.strip().splitlines()[-1].removeprefix("output: "))
    assert "GRPO-only(fullset)" in (first / "compare.md").read_text()
    assert len(list((tmp_path / "probe").glob("*/manifest.json"))) == 1  # all runs share it
    log_times = {log: log.stat().st_mtime for log in (tmp_path / "sweep" / "rows").glob("*.log")}
    blocking_file.unlink()
    result = sweep(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 runs, 2 finished earlier" in result.stdout
    second = Path(result.stdout.strip().splitlines()[-1].removeprefix("output: "))
    assert "GRPO-only(unsolved)" in (second / "compare.md").read_text()
    started_again = {log.name for log, mtime in log_times.items() if log.stat().st_mtime > mtime}
    assert started_again == {"grpo_unsolved-1.log"}
    assert (second / "compare.html").is_file()
