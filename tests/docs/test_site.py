"""The documentation site builds strictly and offline, and its pages name settings that exist."""

import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from difftrain.cli import COMMANDS, OTHER_COMMANDS
from difftrain.cli.overrides import config_groups, setting_keys
from difftrain.config.difficulty import GradeConfig, ProbeConfig
from difftrain.config.run_config import RunConfig
from difftrain.difficulty.evidence import Evidence
from difftrain.records import Stratum

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
FAILING_BLOCK = re.compile(r"^<!-- exit \d+ -->\n```.*?^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOTTED_SETTING = re.compile(r"(?<![\w/.-])\+?([a-z_]+(?:\.[a-z_0-9]+)+)=(?!=)")
COMMAND = re.compile(r"^(?:\$ )?difftrain ([a-z]+)", re.MULTILINE)
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:"
    r"|<link\b[^>]*\brel=\"?(?:stylesheet|preload|preconnect)[^>]*\bhref=\"?https?:"
)
# Keys that a library or another section owns: sbatch options, fields of TRL and of a request.
FOREIGN_PREFIXES = ("slurm.", "grpo.trl.", "sft.trl.", "model.server.extra.")


def build_site(config_file: Path, site: Path) -> None:
    """Build the site as `mkdocs build --strict` does, in this process."""
    build = pytest.importorskip("mkdocs.commands.build", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    from mkdocs.config import load_config

    build.build(load_config(str(config_file), site_dir=str(site), strict=True))


def refuse_connection(*_: object) -> None:
    raise AssertionError("building the site must not open a connection")


def test_the_site_builds_strictly_without_network_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(socket.socket, "connect", refuse_connection)
    build_site(ROOT / "mkdocs.yml", tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert (tmp_path / "tutorial" / "index.html") in pages
    assert [str(page) for page in pages if LOADED.search(page.read_text())] == []


def test_a_link_to_a_missing_file_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    exceptions = pytest.importorskip("mkdocs.exceptions", reason="mkdocs is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[a page](../no_such_file.md)\n")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "site_files.py", tmp_path / "tools")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: x\nhooks: [tools/site_files.py]\nvalidation: {links: {not_found: warn}}\n"
    )
    with pytest.raises(exceptions.Abort):
        build_site(tmp_path / "mkdocs.yml", tmp_path / "site")


def test_every_setting_and_command_in_the_pages_exists() -> None:
    keys = {*setting_keys(RunConfig())}
    commands = {*COMMANDS, *OTHER_COMMANDS}
    wrong = []
    for page in PAGES:
        text = FAILING_BLOCK.sub("", page.read_text())  # with a wrong setting on purpose
        for key in DOTTED_SETTING.findall(text):
            if key not in keys and not key.startswith(FOREIGN_PREFIXES):
                wrong.append(f"{page.name}: {key}")
        for code in FENCE.findall(text):
            wrong += [
                f"{page.name}: difftrain {x}" for x in COMMAND.findall(code) if x not in commands
            ]
    assert wrong == []


def test_every_recipe_data_set_model_and_measure_in_the_pages_exists() -> None:
    groups = config_groups()
    choice = re.compile(rf"(?<![\w.-])({'|'.join(groups)})=([a-z0-9_,]+)(?![\w/.])")
    unknown = []
    for page in PAGES:
        for code in FENCE.findall(page.read_text()):
            for group, names in choice.findall(code):
                unknown += [
                    f"{page.name}: {group}={name}"
                    for name in names.split(",")
                    if name and name not in groups[group]
                ]
    assert unknown == []


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_test_that_a_page_cites_exists() -> None:
    cited = {
        name for page in PAGES for name in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text())
    }
    cited -= {"tests/difficulty/test_instability.py"}  # to be written, in docs/howto/own_measure.md
    assert len(cited) > 15
    assert [name for name in sorted(cited) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", ["own_grader.md", "own_measure.md"])
def test_the_code_of_a_how_to_page_runs(page: str) -> None:
    code = (ROOT / "docs" / "howto" / page).read_text().partition("```python")[2]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code.partition("\n")[2].partition("```")[0], names)
    if page == "own_grader.md":
        assert names["decide"]("#F00", "red", (), GradeConfig()).credit == 1
        assert names["decide"]("blue", "red", (), GradeConfig()).credit == 0
        assert names["decide"]("a dog", "red", (), GradeConfig()).credit is None
        assert names["gold_problem"]("a dog", ()) is not None
        return
    evidence = Evidence(num_ratios=1, num_draws=1, num_full=5, num_text_only=1)
    config = SimpleNamespace(instability=names["InstabilityConfig"]())
    for verdicts, expected in (
        ([1, 1, 1, 0, 0], (0.4, Stratum.medium)),
        ([0, 0, 0, 0, 1], (0.2, Stratum.hard)),
        ([1, 1, 1, 1, 1], (0.0, Stratum.easy)),
        ([0, 0, 0, 0, 0], (0.0, Stratum.unsolved)),
    ):
        evidence.full_image_M[:] = verdicts
        assert names["MEASURE"].score(evidence, config, ProbeConfig()) == expected
    assert names["MEASURE"].draws(config, ProbeConfig()).full_image == 5
