"""Graders in processes that are killed: limits, replacements, and no dependence on their number."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from difftrain import grade
from difftrain.config.grade import GradeConfig
from difftrain.grade import expressions, workers
from difftrain.grade.workers import Ending, Workers, grading
from difftrain.records import Verdict
from tests.grade.adversarial import cases, sample

RULES = GradeConfig()
SEVEN = sample("count", "7", "")
RIGHT = grading("<answer>7</answer>", SEVEN, RULES)
ROOT = grading(r"<answer>\sqrt{49}</answer>", sample("number", "7", ""), RULES)


def test_workers_say_what_the_grader_says() -> None:
    some = cases()[::20]
    with Workers(1, 20.0) as pool:
        replies = pool.ask([grading(case.response, case.sample, RULES) for case in some])
    for case, reply in zip(some, replies, strict=True):
        assert not isinstance(reply, Ending)
        found = grade.grade_with_credit(case.response, case.sample)
        assert (reply["verdict"], reply["value"]) == (found.verdict, found.value)


def test_the_number_of_workers_changes_nothing() -> None:
    messages = [grading(case.response, case.sample, RULES) for case in cases()[::25]]
    found = []
    for number in (1, 2):
        with Workers(number, 20.0) as pool:
            found.append(pool.ask(messages))
    assert found[0] == found[1]


def test_a_stuck_worker_is_killed_and_replaced_and_the_others_go_on() -> None:
    with Workers(2, 1.0) as pool:
        while not all(post.ready for post in pool.posts):
            pool.ask([RIGHT])
        stuck = pool.posts[0].child.pid
        os.kill(stuck, signal.SIGSTOP)
        started = time.monotonic()
        replies = pool.ask([RIGHT] * 20)
        assert 0.9 < time.monotonic() - started < 30
        assert replies.count(Ending.timed_out) == 1
        assert [r for r in replies if r != Ending.timed_out] == [
            {"verdict": "correct", "value": 1.0}
        ] * 19
        assert stuck not in {post.child.pid for post in pool.posts}
        assert pool.killed == 1
        with pytest.raises(ProcessLookupError):
            os.kill(stuck, 0)
        assert Ending.timed_out not in pool.ask([RIGHT] * 4)


def test_a_worker_that_dies_at_an_answer_is_a_counted_outcome() -> None:
    with Workers(1, 20.0) as pool:
        pool.ask([RIGHT])
        pid = pool.posts[0].child.pid
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        timer.start()
        assert pool.ask([RIGHT, RIGHT]) == [Ending.died, {"verdict": "correct", "value": 1.0}]
        timer.join()


def test_a_worker_that_dies_idle_costs_no_answer() -> None:
    with Workers(1, 20.0) as pool:
        pool.ask([RIGHT])
        pool.posts[0].child.process.kill()
        pool.posts[0].child.process.wait()
        assert pool.ask([RIGHT]) == [{"verdict": "correct", "value": 1.0}]


def test_loading_math_verify_is_not_charged_to_the_answer_that_needs_it() -> None:
    with Workers(1, 1.0) as pool:
        assert pool.ask([ROOT]) == [{"verdict": "correct", "value": 1.0}]


def test_an_answer_that_eats_memory_ends_its_worker_and_not_this_process() -> None:
    huge = {**RIGHT, "grade": "<answer>7</answer>" * 1_000_000}
    with Workers(1, 30.0) as pool:
        replies = pool.ask([huge, RIGHT])
    assert replies[1] == {"verdict": "correct", "value": 1.0}


def test_workers_that_cannot_start_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftrain.grade.child.PROGRAM", "difftrain.grade.no_such_program")
    with (
        pytest.raises(workers.WorkersFailed, match="No module named"),
        Workers(1, 1.0) as pool,
    ):
        pool.ask([RIGHT])


def test_sympy_is_never_imported_in_the_process_that_asks() -> None:
    code = (
        "import sys; from difftrain.grade import expressions;"
        r"assert expressions.equal(r'\sqrt{12}', r'2\sqrt{3}');"
        "assert not {'sympy', 'math_verify', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_worker_outlives_its_pool() -> None:
    pool = Workers(1, 1.0)
    pids = [post.child.pid for post in pool.posts]
    pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_verdicts_are_equal_in_every_thread() -> None:
    found: list[Verdict] = []
    case = sample("number", r"2\sqrt{3}", "")
    threads = [
        threading.Thread(
            target=lambda: found.append(grade.grade(r"<answer>\sqrt{12}</answer>", case))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Verdict.correct] * 3
    assert expressions.equal("x", "y") is False
