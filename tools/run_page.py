"""Run the commands of a documentation page and write what they print into the page.

A ```console block holds commands, each behind `$ `, and below each what it printed on stdout. All
commands of a page run in one folder, in order. `difftrain view` is ended once it serves its page.

python tools/run_page.py PAGE [PAGE ...]           run the commands, and update the page
python tools/run_page.py --check PAGE [PAGE ...]   only run them; exit 1 if one fails

A page names the exit code of a command that is meant to fail in an HTML comment before the block,
such as <!-- exit 137 -->.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?:<!-- exit (?P<code>\d+) -->\n)?```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
SERVES = "difftrain view"
ADDRESS = re.compile(r"127\.0\.0\.1:\d+/\?token=\S+")
SHOWN_ADDRESS = "127.0.0.1:8321/?token=..."  # the default port; a free one was taken
NOISE = re.compile(r"^\[.*real_accelerator\.py.*\n", re.MULTILINE)  # DeepSpeed's, without a GPU
HIDDEN_FOLDERS = (str(ROOT), str(Path.home()))  # replaced in what is printed


class CommandError(RuntimeError):
    """A command of a page ended with another exit code than the page says."""


def commands(body: str) -> list[str]:
    """The commands of a block, behind `$ `; one goes on after a backslash and in double quotes."""
    joined, lines = [], iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\") or command.count('"') % 2:
                command += "\n" + next(lines)
            joined.append(command)
    return joined


def run_command(command: str, folder: Path) -> tuple[int, str]:
    """Exit code and stdout of a command that bash runs in the folder; stderr goes to stderr."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    if command.startswith(SERVES):
        command = f"exec {command} view.port=0"
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    if not command.startswith(f"exec {SERVES}"):
        output, _ = process.communicate()
        return process.returncode, output
    address = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    return (0 if address.startswith("open: ") else 1), ADDRESS.sub(SHOWN_ADDRESS, address)


def run_page(page: str, folder: Path) -> str:
    """Run all commands of a page's text in this folder; returns the text with what they printed.

    Raises CommandError at the first command with an unexpected exit code.
    """

    def run_block(match: re.Match[str]) -> str:
        expected, parts = int(match["code"] or 0), []
        for command in commands(match["body"]):
            code, output = run_command(command, folder)
            if code != expected:
                raise CommandError(f"exit code {code} instead of {expected}: {command}\n{output}")
            output = NOISE.sub("", output)
            for path in HIDDEN_FOLDERS:
                output = output.replace(f"{path}/", "")
            parts.append(f"$ {command}\n{output.rstrip()}".rstrip())
        comment = f"<!-- exit {match['code']} -->\n" if match["code"] else ""
        return f"{comment}```console\n" + "\n".join(parts) + "\n```"

    return BLOCK.sub(run_block, page)


def prepared_folder(folder: Path) -> Path:
    """The folder, with the parts of a checkout that the pages' commands name."""
    for name in ("examples", "launch"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def main() -> None:
    """Run the pages named on the command line."""
    parser = argparse.ArgumentParser(description="Run the commands of documentation pages.")
    parser.add_argument("--check", action="store_true", help="leave the pages as they are")
    parser.add_argument("pages", nargs="+", type=Path)
    options = parser.parse_args()
    for path in options.pages:
        with tempfile.TemporaryDirectory() as folder:
            try:
                text = run_page(path.read_text(), prepared_folder(Path(folder)))
            except CommandError as error:
                sys.exit(f"{path}: {error}")
        if not options.check:
            path.write_text(text)


if __name__ == "__main__":
    main()
