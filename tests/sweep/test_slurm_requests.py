"""What a sweep asks of SLURM and what it refuses: options, arrays, set-up files, containers."""

import os
import subprocess
from pathlib import Path

import pytest

from difftrain import sweep as sweep_module
from difftrain.config.run_config import ConfigError
from difftrain.sweep import expand, jobs, slurm, slurm_options
from difftrain.sweep.expand import SweepTable
from difftrain.sweep.jobs import SubmittedJob
from difftrain.sweep.local_launcher import SweepPlan
from difftrain.sweep.slurm import SlurmRequest
from tests.sweep.fake_slurm import TASK_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
ZERO3 = ROOT / "launch" / "accelerate" / "zero3.yaml"  # eight processes


def refusals(*arguments: str) -> str:
    """The problems for which the sweep with these arguments is refused; empty if it is not."""
    try:
        sweep_module.plan_sweep(sweep_module.parse(["recipe=grpo_full", *arguments]))
    except ConfigError as error:
        return "\n".join(error.problems)
    return ""


def plan_in(folder: Path, *seeds: str, recipes: tuple[str, ...] = ("grpo_full",)) -> SweepPlan:
    """The plan of runs with these seeds, below an output folder."""
    axes = {"recipe": [*recipes], "seed": [*seeds]}
    runs = expand.expand(axes, SweepTable(), [f"output_dir={folder}"])
    return SweepPlan(name="x", folder=folder / "s", runs=runs, at_a_time=1, accelerate=None)


def run_task(plan: SweepPlan, index: int = 0, **variables: str) -> tuple[int, str]:
    """Run a task of the plan's script; returns its exit code and what it printed."""
    environment = {**os.environ, **TASK_VARIABLES, "SLURM_JOB_NUM_NODES": "1", **variables}
    environment["SLURM_ARRAY_TASK_ID"] = str(index)
    script = str(plan.folder / "run.sbatch")
    ended = subprocess.run(["bash", script, "0"], env=environment, text=True, capture_output=True)
    output = plan.folder / f"slurm-{TASK_VARIABLES['SLURM_ARRAY_JOB_ID']}_{index}.out"
    return ended.returncode, (output.read_text() if output.is_file() else "") + ended.stderr


def calls(record: Path) -> list[str]:
    """The calls of sbatch and scancel, without folders."""
    return [line.replace(f"{record.parent}/s/", "") for line in record.read_text().splitlines()]


@pytest.mark.parametrize("path", sorted((ROOT / "launch" / "accelerate").glob("zero*.yaml")))
def test_deepspeed_starts_the_processes_of_several_nodes_without_ssh(path: Path) -> None:
    # accelerate's own default is pdsh: a world per node, and the environment in .deepspeed_env.
    assert "deepspeed_multinode_launcher: standard" in path.read_text()


def test_nodes_without_a_launcher_file_are_refused() -> None:
    assert "slurm.nodes=2: needs accelerate=FILE" in refusals("slurm.nodes=2")
    assert not refusals("slurm.nodes=2", f"accelerate={ZERO3}")
    assert "slurm.nodes=N sets the nodes" in refusals("slurm.ntasks=2")


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"gpus-per-node": "4"}, 4),
        ({"gpus-per-node": "a100:4"}, 4),
        ({"gres": "gpu:4,lustre:1"}, 4),
        ({"gres": "gpu:a100:3,gpu:h100:1"}, 4),
        ({"gres": "gpu"}, 1),
        ({"gpus": "8", "nodes": "2"}, 4),
        ({"gpus-per-task": "2"}, 2),
        ({"gres": "lustre:1"}, None),
        ({"partition": "gpu"}, None),
    ],
)
def test_the_gpus_of_a_node_are_read_from_every_option(
    options: dict[str, str], gpus: int | None
) -> None:
    assert slurm_options.gpus_per_node(options) == gpus


def test_more_processes_than_gpus_are_refused_and_gpus_that_one_process_cannot_use() -> None:
    file = f"accelerate={ZERO3}"
    assert "has 4 GPUs by slurm.*, but 8 are needed" in refusals(file, "slurm.gpus-per-node=4")
    assert not refusals(file, "slurm.gpus-per-node=8")
    assert "without accelerate=FILE it is one process" in refusals("slurm.gres=gpu:8")
    assert not refusals("slurm.gres=gpu:1")


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400), ("1-12:30", 131400), ("0", 0)],
)  # fmt: skip
def test_a_time_limit_is_read_as_sbatch_reads_it(time: str, seconds: int) -> None:
    assert slurm_options.time_limit_seconds(time) == (seconds or None)  # 0: unlimited


def test_a_run_saves_ten_minutes_before_its_limit_or_in_its_last_quarter() -> None:
    assert slurm_options.stop_seconds({"time": "1-00:00:00"}) == 600
    assert slurm_options.stop_seconds({"time": "20"}) == 300
    assert slurm_options.stop_seconds({"time": "20", "signal": "B:USR1@30"}) == 30
    assert "must be longer than the 60 s" in refusals("slurm.time=1", "slurm.signal=B:USR1@60")
    assert "must be B:USR1@SECONDS" in refusals("slurm.signal=TERM@60")


def test_a_set_up_file_that_bash_cannot_read_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "setup.sh"
    file.write_text("module load cuda\nif true; then\n")
    assert "line 3: syntax error" in refusals(f"slurm={file}")


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("export LD_LIBRARY_PATH=/x:$NO_SUCH_VARIABLE\n", None),
        ("true || false\n[ -n '' ] && echo x\n", None),
        ("true\nno-such-module x\n", 'line 2: "no-such-module x" ended with exit code 127'),
        ("source /no/such/env/bin/activate\n", "line 1: "),
    ],
)  # fmt: skip
def test_a_command_of_the_set_up_file_that_fails_keeps_the_run_from_starting(
    tmp_path: Path, sbatch_record: Path, text: str, failure: str | None
) -> None:
    file = tmp_path / "set up.sh"
    file.write_text(text)
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(setup=str(file)))
    exit_code, printed = run_task(plan)
    was_started = Path(f"{sbatch_record}.srun").is_file()
    if failure is None:
        assert (exit_code, was_started) == (0, True), printed
    else:
        assert (exit_code, was_started) == (1, False)
        assert f"slurm={file}, {failure}" in printed


def test_every_task_passes_its_environment_on_and_has_its_own_folder_for_builds(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest())
    run_task(plan)
    assert "--export=ALL" in Path(f"{sbatch_record}.srun").read_text().splitlines()
    variables = Path(f"{sbatch_record}.env").read_text()
    folder = f"difftrain-{os.getuid()}-4007-0"
    assert f"{folder}\n" in variables.partition("TORCH_EXTENSIONS_DIR=")[2]
    run_task(plan, SLURM_RESTART_COUNT="1")  # a killed build leaves a lock
    assert f"{folder}\n" not in Path(f"{sbatch_record}.env").read_text()


def test_a_step_that_ends_without_the_runs_last_line_is_not_called_done(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest())
    (tmp_path / "bin" / "srun").write_text("#!/bin/bash\necho 'srun: error: Node failure on n1'\n")
    exit_code, printed = run_task(plan)
    assert exit_code == 1
    assert "done" not in printed
    assert "Node failure on n1" in printed


def test_a_failed_task_prints_the_reason_instead_of_the_launchers_traceback(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest())
    traceback = (
        "Traceback (most recent call last):\\n  File launch.py\\n"
        "subprocess.CalledProcessError: Command died"
    )
    (tmp_path / "bin" / "srun").write_text(
        f"#!/bin/bash\nprintf 'OSError: disk is full\\n{traceback}\\n'\nexit 1\n"
    )
    exit_code, printed = run_task(plan)
    assert exit_code == 1
    assert "grpo_full-1: FAILED, exit code 1: OSError: disk is full" in printed
    assert "CalledProcessError" not in printed
    assert "OSError: disk is full" in jobs.status(plan)


def test_an_array_larger_than_slurm_allows_is_split(tmp_path: Path, sbatch_record: Path) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text("#!/bin/bash\necho 'MaxArraySize            = 2'\n")
    plan = plan_in(tmp_path, "1", "2", "3", "4", "5")
    slurm.submit(plan, SlurmRequest())
    assert calls(sbatch_record) == [
        "--parsable --array=0-1 run.sbatch 0",
        "--parsable --array=0-1 run.sbatch 2",
        "--parsable --array=0-0 run.sbatch 4",
        "--parsable --dependency=afterany:1:2:3 table.sbatch",
    ]
    sbatch_record.unlink()
    slurm.submit(plan, SlurmRequest(throttle=2))  # jobs=2: one array after the other
    assert (
        calls(sbatch_record)[1] == "--parsable --dependency=afterany:1 --array=0-1%2 run.sbatch 2"
    )


def test_only_shared_and_unfinished_probes_have_tasks_of_their_own(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1", "2", recipes=("grpo_full", "grpo_random"))
    assert [task.label for task in slurm.probe_tasks(plan.runs)] == [
        "probe-grpo_full-1", "probe-grpo_full-2",
    ]  # fmt: skip
    probe = plan.runs[0].paths.probe
    probe.mkdir(parents=True)
    (probe / "manifest.json").write_text('{"counts": {}}')
    attention = plan.runs[0].paths.attention
    attention.mkdir(parents=True)
    (attention / "manifest.json").write_text('{"counts": {}}')
    assert [task.label for task in slurm.probe_tasks(plan.runs)] == ["probe-grpo_full-2"]
    assert slurm.probe_tasks(plan.runs[:1]) == []  # the run itself probes


def test_the_same_command_while_jobs_wait_or_run_submits_nothing_twice(
    tmp_path: Path, sbatch_record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_in(tmp_path, "1", "2")
    slurm.submit(plan, SlurmRequest())
    assert [job.job for job in jobs.read_jobs(plan)] == ["1", "2"]
    queue = Path(f"{sbatch_record}.queue")
    queue.write_text("1|0|RUNNING|9:00|None|(null)\n1|1|PENDING|10:00|Resources|(null)\n"
                     "2|N/A|PENDING|1:00|Dependency|(null)\n")  # fmt: skip
    num_calls = len(calls(sbatch_record))
    capsys.readouterr()
    slurm.submit(plan, SlurmRequest())
    assert len(calls(sbatch_record)) == num_calls
    assert (
        "grpo_full-1: running as job 1_0, so it is not submitted again" in capsys.readouterr().out
    )
    # A run that has failed is submitted again; the new comparison waits for all, the old one goes.
    queue.write_text("1|0|RUNNING|9:00|None|(null)\n1|1|FAILED|0:00|NonZeroExitCode|(null)\n"
                     "2|N/A|PENDING|1:00|Dependency|(null)\n")  # fmt: skip
    slurm.submit(plan, SlurmRequest())
    assert calls(sbatch_record)[num_calls:] == [
        "--parsable --array=0-0 run.sbatch 0",
        "--parsable --dependency=afterany:1:3 table.sbatch",
        "scancel 2",
    ]
    status = jobs.status(plan)
    assert "grpo_full-1  running" in status
    assert "9:00" in status


def test_cancel_names_the_tasks_that_it_cancels(
    tmp_path: Path, sbatch_record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_in(tmp_path, "1", "2")
    jobs.add_job(plan, SubmittedJob("7", ("grpo_full-1", "grpo_full-2")))
    Path(f"{sbatch_record}.queue").write_text(
        "7|0|COMPLETED|0:00|None|(null)\n7|1|RUNNING|9:00|None|(null)\n9|0|RUNNING|1:00|None|x\n"
    )
    jobs.cancel(plan)
    assert calls(sbatch_record) == ["scancel 7_1"]  # 9 belongs to someone else
    assert "cancelled 7_1: grpo_full-2" in capsys.readouterr().out


def test_if_the_comparison_job_is_refused_nothing_stays_queued(
    tmp_path: Path, sbatch_record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = 'case "$*" in *table.sbatch*) echo "error: needs a GPU" >&2; exit 1;; esac; echo 5'
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/bash\n{policy}\n")
    with pytest.raises(SystemExit):
        slurm.submit(plan_in(tmp_path, "1"), SlurmRequest())
    message = capsys.readouterr().err
    assert "sbatch refuses the comparison job: error: needs a GPU" in message
    assert "nothing is queued; cancelled the jobs submitted before it: 5" in message
    assert "slurm.table.OPTION=VALUE" in message
    assert calls(sbatch_record) == ["scancel 5"]


def test_after_the_failure_of_one_node_the_run_fails_instead_of_starting_again(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(options={"python": "false"}))
    # An srun with two nodes: the first fails, so the second gets SIGTERM while it still runs.
    (tmp_path / "bin" / "srun").write_text(
        "#!/bin/bash\nshift 2\n"
        '"$@" & first=$!\nwait $first; code=$?\n'
        "sleep_task=${3/exec /exec sleep 9; }\n"
        'bash -c "$sleep_task" & sleep 0.5; kill -TERM $!; sleep 0.5; kill -9 $!\nexit $code\n'
    )
    exit_code, printed = run_task(plan)
    assert (plan.folder / "grpo_full-1.stop").exists()
    assert exit_code == 1
    assert "starts again" not in printed
    assert "FAILED" in printed


def test_a_container_image_starts_the_runs_and_the_comparison(
    tmp_path: Path, sbatch_record: Path
) -> None:
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$RECORD.apptainer"; echo output: x\n')
    apptainer.chmod(0o755)
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\nshift 2\nexec "$@"\n')
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(options={"apptainer": "/images/a b.sif"}))
    exit_code, printed = run_task(plan)
    assert exit_code == 0, printed
    arguments = Path(f"{sbatch_record}.apptainer").read_text().splitlines()
    assert arguments[:5] == ["exec", "--nv", "/images/a b.sif", "python3", "-m"]
    assert arguments[-6:-3] == ["-m", "difftrain.cli", "train"]
    table = (plan.folder / "table.sbatch").read_text()
    assert "exec apptainer exec --nv '/images/a b.sif' python3 -m difftrain.cli sweep" in table


def test_the_options_of_pyxis_go_to_srun(tmp_path: Path, sbatch_record: Path) -> None:
    options = {"container-image": "nvcr.io#nvidia/x:1", "slurm.time": "10"}
    problems = slurm_options.option_problems({"container-image": "x", "apptainer": "y"})
    assert problems == ["slurm.apptainer: cannot be combined with slurm.container-image"]
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(options={"container-image": options["container-image"]}))
    run_task(plan)
    arguments = Path(f"{sbatch_record}.srun").read_text().splitlines()
    assert "--container-image=nvcr.io#nvidia/x:1" in arguments
    for name in ("run.sbatch", "table.sbatch"):
        script = (plan.folder / name).read_text()
        assert "#SBATCH --container" not in script
        assert "srun --export=ALL" in script


def test_a_value_with_a_blank_or_a_percent_sign_reaches_sbatch_unchanged(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path / "100%j", "1")
    slurm.submit(plan, SlurmRequest(options={"comment": "two words"}))
    script = (plan.folder / "run.sbatch").read_text()
    assert "#SBATCH --comment='two words'\n" in script
    assert "#SBATCH --output=/dev/null\n" in script  # the task itself opens the file
    assert "100%%j" in (plan.folder / "table.sbatch").read_text()
    assert run_task(plan)[0] == 0


def test_on_slurm_the_scheduler_decides_how_many_tasks_run_unless_jobs_is_set(
    tmp_path: Path, sbatch_record: Path
) -> None:
    arguments = ["table=shapes", "recipe=grpo_full", "seed=1", f"output_dir={tmp_path}",
                 "slurm=plain"]  # fmt: skip
    sweep_module.main(arguments)
    assert "--array=0-0 " in sbatch_record.read_text().splitlines()[0]
    plan = sweep_module.plan_sweep(sweep_module.parse(arguments))
    assert plan.at_a_time == 1  # not the number of the login node's cores


def test_status_of_a_sweep_on_this_machine_reads_the_outcomes(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "1", "2")
    plan.folder.mkdir()
    plan.log(plan.runs[0]).write_text("ConfigError: bad settings\n")
    plan.status_path.write_text('{"grpo_full-1": {"finished": false}}')
    lines = jobs.status(plan).splitlines()
    assert lines[0].split() == ["run", "state", "step", "reward", "time", "left", "reason"]
    assert lines[1].startswith("grpo_full-1  failed")
    assert lines[1].endswith("ConfigError: bad settings")
    assert lines[2].split() == ["grpo_full-2", "to", "do"]


@pytest.mark.parametrize("setup", ["", "set -euo pipefail\n"])
def test_a_task_that_has_saved_requeues_itself_and_not_its_array(
    tmp_path: Path, sbatch_record: Path, setup: str
) -> None:
    """One task of an array has the array's number as its job id. Set-up options end there."""
    file = tmp_path / "setup.sh"
    file.write_text(setup)
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(setup=str(file)))
    (tmp_path / "bin" / "srun").write_text(
        "#!/bin/bash\n"
        ': > "$DIFFTRAIN_STOP_FILE"; : > "${DIFFTRAIN_STOP_FILE%.stop}.saved"; exit 1\n'
    )
    run_task(plan, SLURM_JOB_ID=TASK_VARIABLES["SLURM_ARRAY_JOB_ID"])
    assert "scontrol requeue 4000_0" in calls(sbatch_record)


def test_a_run_that_could_not_save_fails_with_the_reason_instead_of_starting_again(
    tmp_path: Path, sbatch_record: Path
) -> None:
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest())
    (plan.folder / "grpo_full-1.saved").touch()  # by an earlier start
    (tmp_path / "bin" / "srun").write_text(
        '#!/bin/bash\n: > "$DIFFTRAIN_STOP_FILE"\necho "OSError: No space left"\nexit 1\n'
    )
    exit_code, printed = run_task(plan)
    assert exit_code == 1
    assert "not started again, because it has saved nothing since start 1" in printed
    assert "FAILED, exit code 1: OSError: No space left" in printed
    assert not [call for call in calls(sbatch_record) if "requeue" in call]


def test_every_call_names_the_cluster_that_took_the_first_job(
    tmp_path: Path, sbatch_record: Path
) -> None:
    (tmp_path / "bin" / "sbatch").write_text('#!/bin/bash\necho "$@" >> "$RECORD"; echo "5;far"\n')
    (tmp_path / "bin" / "squeue").write_text(
        '#!/bin/bash\necho "$@" >> "$RECORD"; echo CLUSTER: far\n'
        'echo "5|0|RUNNING|9:00|None|(null)"\n'
    )
    plan = plan_in(tmp_path, "1")
    slurm.submit(plan, SlurmRequest(options={"clusters": "near,far"}))
    jobs.cancel(plan)
    first, second, query, cancel = calls(sbatch_record)
    assert first == "--parsable --array=0-0 run.sbatch 0"  # sbatch chooses by the script's option
    assert second == "--parsable --clusters=far --dependency=afterany:5 table.sbatch"
    assert query.endswith("--clusters=far")
    assert cancel == "scancel --clusters=far 5_0"
