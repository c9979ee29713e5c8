"""Stand-ins for SLURM's commands, which record how they are called."""

FAKE_COMMANDS = {
    "sbatch": 'echo "$@" >> "$RECORD"; wc -l < "$RECORD" | tr -d " "',
    "scontrol": """if [ "$1" = requeue ]; then echo "scontrol $@" >> "$RECORD"; exit 1; fi
        [ "$2" = config ] || printf 'node7\\nnode8\\n'""",
    "squeue": 'cat "$RECORD.queue" 2> /dev/null || true',
    "scancel": 'echo "scancel $@" >> "$RECORD"',
    "srun": 'printf "%s\\n" "$@" > "$RECORD.srun"; env > "$RECORD.env"; echo "output: x"',
}
"""Bash bodies of fake cluster commands. sbatch writes its arguments to the file $RECORD and prints
the number of its calls as the job id. srun writes its arguments and its environment to files, and
prints the last line of a run. scontrol records a requeue and refuses it. squeue prints the file
$RECORD.queue, if there is one."""
TASK_VARIABLES = {
    "SLURM_ARRAY_JOB_ID": "4000", "SLURM_JOB_ID": "4007", "SLURM_JOB_NODELIST": "x",
    "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "0", "SLURM_CPUS_ON_NODE": "8",
}  # fmt: skip
"""What SLURM sets in a task, beside the index of the task."""
