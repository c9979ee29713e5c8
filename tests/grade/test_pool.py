"""A GraderPool grades in worker processes. It kills and replaces workers that are stuck."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrain import grade
from difftrain.config.difficulty import GradeConfig
from difftrain.grade import GradeResult, grade_batch, grade_with_credit, math
from difftrain.grade.pool import GradeFailure, GraderPool, GraderPoolError
from difftrain.records import Verdict
from tests.grade.adversarial import cases, sample

RULES = GradeConfig()  # no partial credit
SEVEN_SAMPLE = sample("count", "7", options="")
CORRECT = grade_with_credit("<answer>7</answer>", SEVEN_SAMPLE)


def grade_sevens(pool: GraderPool, num_copies: int = 1) -> list[GradeResult | GradeFailure]:
    return grade_batch(
        pool, ["<answer>7</answer>"] * num_copies, [SEVEN_SAMPLE] * num_copies, RULES
    )


def grade_square_root(pool: GraderPool) -> list[GradeResult | GradeFailure]:
    return grade_batch(
        pool, [r"<answer>\sqrt{49}</answer>"], [sample("number", "7", options="")], RULES
    )


def test_workers_give_the_same_verdicts_as_this_process() -> None:
    sampled = cases()[::20]  # every 20th, to save time
    with GraderPool(1, timeout_s=20.0) as pool:
        results = grade_batch(
            pool, [c.response for c in sampled], [c.sample for c in sampled], RULES
        )
    assert results == [grade.grade_with_credit(case.response, case.sample) for case in sampled]


def test_the_number_of_workers_changes_no_result() -> None:
    sampled = cases()[::25]  # every 25th, to save time
    results = []
    for num_workers in (1, 2):
        with GraderPool(num_workers, timeout_s=20.0) as pool:
            results.append(
                grade_batch(pool, [c.response for c in sampled], [c.sample for c in sampled], RULES)
            )
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        pytest.param(time.sleep, (60,), id="Python code"),
        pytest.param(re.match, ("(a+)+b", "a" * 60), id="C code that holds the interpreter"),
        pytest.param(signal.raise_signal, (signal.SIGSTOP,), id="a stopped process"),
    ],
)
def test_a_stuck_worker_is_killed_and_replaced_while_others_continue(
    function: Callable[..., object], arguments: tuple
) -> None:
    with GraderPool(2, timeout_s=1.0) as pool:
        grade_sevens(pool, 4)
        started = time.monotonic()
        assert pool.run(function, [arguments]) == [GradeFailure.timed_out]
        assert 0.9 < time.monotonic() - started < 30  # the limit is 1 s; this machine may be busy
        assert pool.num_killed == 1
        assert grade_sevens(pool, 20) == [CORRECT] * 20


def test_after_a_timeout_the_workers_process_is_gone() -> None:
    with GraderPool(1, timeout_s=1.0) as pool:
        (pid,) = pool.run(os.getpid, [()])
        assert pool.run(time.sleep, [(60,)]) == [GradeFailure.timed_out]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # signal 0 only checks whether the process exists
        assert pool.run(os.getpid, [()]) != [pid]


def test_results_keep_the_order_of_the_calls_when_one_times_out() -> None:
    with GraderPool(2, timeout_s=1.0) as pool:
        results = pool.run(time.sleep, [(0.0,), (60.0,), (0.0,), (0.0,)])
    assert results == [None, GradeFailure.timed_out, None, None]  # time.sleep returns None


def test_a_call_whose_worker_dies_is_a_failure_and_is_counted() -> None:
    with GraderPool(1, timeout_s=20.0) as pool:
        # The list has the arguments of one call: the exit code 3.
        assert pool.run(os._exit, [(3,)]) == [GradeFailure.died]
        assert pool.num_killed == 1
        assert grade_sevens(pool) == [CORRECT]


def test_a_worker_that_dies_while_idle_causes_no_failure() -> None:
    with GraderPool(1, timeout_s=20.0) as pool:
        (pid,) = pool.run(os.getpid, [()])
        os.kill(pid, signal.SIGKILL)
        assert grade_sevens(pool) == [CORRECT]
        assert pool.num_killed == 0


def test_the_import_of_math_verify_does_not_count_towards_the_time_limit() -> None:
    with GraderPool(1, timeout_s=1.0) as pool:
        (result,) = grade_square_root(pool)
        assert isinstance(result, GradeResult)
        assert result.verdict is Verdict.correct


def test_an_answer_that_needs_too_much_memory_ends_only_its_worker() -> None:
    with GraderPool(1, timeout_s=30.0) as pool:
        # A worker may use 4 GiB of memory, and this call needs 8 GiB.
        assert pool.run(bytearray, [(8 << 30,)]) == [GradeFailure.died]
        # The new worker also grades the answer that follows a very long response (18 MB).
        responses = ["<answer>7</answer>" * 1_000_000, "<answer>7</answer>"]
        assert grade_batch(pool, responses, [SEVEN_SAMPLE, SEVEN_SAMPLE], RULES)[1] == CORRECT


def test_the_error_for_workers_that_cannot_start_has_their_stderr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A worker imports scipy when it starts.
    (tmp_path / "scipy.py").write_text("raise ImportError('scipy is broken here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        pytest.raises(GraderPoolError, match=r"(?s)cannot be started.*scipy is broken here"),
        GraderPool(1, timeout_s=1.0) as pool,
    ):
        grade_sevens(pool)


def test_sympy_is_never_imported_in_the_calling_process() -> None:
    code = (
        "import sys; from difftrain.grade import math;"
        r"assert math.expressions_equal(r'\sqrt{12}', r'2\sqrt{3}');"
        "assert not {'sympy', 'math_verify', 'torch'} & sys.modules.keys()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_a_script_without_a_main_guard_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from difftrain.grade import math\n"
        r"print(math.expressions_equal(r'\sqrt{12}', r'2\sqrt{3}'))"
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert process.stdout == "True\n", process.stderr


def test_no_worker_outlives_its_pool() -> None:
    pool = GraderPool(2, timeout_s=1.0)
    pids = set(pool.run(os.getpid, [()] * 8))
    pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)  # signal 0 only checks whether the process exists


def test_threads_can_grade_at_the_same_time() -> None:
    verdicts: list[Verdict] = []
    root_sample = sample("number", r"2\sqrt{3}", options="")
    threads = [
        threading.Thread(
            target=lambda: verdicts.append(grade.grade(r"<answer>\sqrt{12}</answer>", root_sample))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [Verdict.correct] * 3
    assert math.expressions_equal("x", "y") is False  # the worker still replies
