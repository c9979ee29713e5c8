"""The commands of the tutorial and of the examples run as they stand in the pages."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("tutorial.md", "examples/own_photos.md", "examples/resume.md")
spec = importlib.util.spec_from_file_location("run_page", ROOT / "tools" / "run_page.py")
assert spec is not None
assert spec.loader is not None
run_page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_page)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_runs_as_written(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / name).read_text()
    text = run_page.run_page(page, run_page.prepared_folder(tmp_path))
    assert "output: outputs/" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_command_outside_the_blocks_that_are_run(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    blocks = [match["body"] for match in run_page.BLOCK.finditer(page)]
    assert sum(len(run_page.commands(body)) for body in blocks) >= 6
    rest = run_page.BLOCK.sub("", page)
    assert [line for line in rest.splitlines() if line.startswith(("difftrain ", "$ "))] == []


def test_commands_are_joined_and_their_output_is_replaced(tmp_path: Path) -> None:
    page = "text\n\n```console\n$ echo one \\\n    two\nold output\n$ pwd | wc -l\n```\n\nrest\n"
    expected = (
        "text\n\n```console\n$ echo one \\\n    two\none two\n$ pwd | wc -l\n1\n```\n\nrest\n"
    )
    assert run_page.run_page(page, tmp_path) == expected


def test_a_command_with_an_unexpected_exit_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(run_page.CommandError, match=r"exit code 3 instead of 0: exit 3"):
        run_page.run_page("```console\n$ exit 3\n```\n", tmp_path)
    page = "<!-- exit 3 -->\n```console\n$ exit 3\n```\n"
    assert run_page.run_page(page, tmp_path) == page
