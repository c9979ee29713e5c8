"""Settings of the judge, which scores answers, and its server's environment variables.

The server's address and key are read from environment variables only and never written to a file.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from difftrain.config.model import is_address
from difftrain.config.setting import setting

URL = "JUDGE_BASE_URL"  # the server's address, including its version (https://host/v1)
MODEL = "JUDGE_MODEL"  # the judge model's name on the server; it is printed with the score
KEY = "JUDGE_API_KEY"
"""The API key, if the server needs one. OPENAI_API_KEY is never read, because it is the key of
OpenAI's server, which may not be the judge's."""
STAND_IN = "shapes stand-in (rules, no model)"  # in reports: rules that judge the built-in shapes/
NO_JUDGE = "none (rules only)"  # the judge's name in reports if only rules decide
JudgeKind = StrEnum("JudgeKind", ["shapes", "endpoint", "none"])
"""What scores the items that the rules cannot score."""


@dataclass(kw_only=True, slots=True)
class JudgeClientConfig:
    """How the judge's server is called. It changes no score; a failed call gives no score."""

    max_concurrency: int = setting(8, at_least=1, at_most=256)
    """Number of calls that may be open at the same time."""
    max_attempts: int = setting(3, at_least=1, at_most=20)
    """Attempts for one reply (run.py of VLMEvalKit, the reference harness: 3 in 2025, now 6)."""
    timeout_s: float = setting(60.0, above=0, at_most=3600)
    """Limit from sending a request to the last byte of the reply."""
    backoff_s: float = setting(1.0, at_least=0, at_most=60)
    """Pause before the second attempt; it doubles with every attempt. Retry-After is obeyed."""
    max_calls: int | None = setting(20_000, at_least=1, or_null="for no limit")
    """Limit of calls per checkpoint and command (null: none). Items beyond it get no score."""


def model_name(judge: JudgeKind, benchmarks: Iterable[str]) -> str:
    """The judge's name, printed beside a score and part of the results' fingerprint."""
    if judge is JudgeKind.endpoint:
        return os.environ.get(MODEL, "").strip()
    without_judge = {by_rules_alone(judge, name) for name in benchmarks}
    if without_judge == {True, False}:
        return f"{STAND_IN} for shapes/, {NO_JUDGE} for the others"
    return NO_JUDGE if True in without_judge else STAND_IN


def server_hash(judge: JudgeKind) -> str | None:
    """A hash that identifies the judge's server without naming it; None if no server judges.

    User name, password, the case of the host and a trailing slash do not change it.
    """
    if judge is not JudgeKind.endpoint:
        return None
    parts = urlsplit(os.environ.get(URL, "").strip().rstrip("/"))
    host = parts.netloc.rpartition("@")[2].lower()
    address = f"{parts.scheme}://{host}{parts.path}?{parts.query}"
    return hashlib.blake2b(address.encode(), digest_size=8).hexdigest()


def by_rules_alone(judge: JudgeKind, benchmark: str) -> bool:
    """Whether only rules score this benchmark. judge=shapes judges the built-in shapes/NAME."""
    if judge is JudgeKind.shapes:
        return not benchmark.startswith("shapes/")
    return judge is JudgeKind.none


def environment_problems(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """What is wrong with the judge's environment variables; the messages contain no value."""
    unset = [name for name in (URL, MODEL) if not environment.get(name, "").strip()]
    if unset:
        yield f"needs {' and '.join(unset)} in the environment"
    if URL not in unset and not is_address(environment[URL]):
        yield f"needs {URL} to be an address such as https://host/v1"
    key = environment.get(KEY, "")
    if not (key.isascii() and key.isprintable()):
        yield f"needs {KEY} to be one line of plain characters"
