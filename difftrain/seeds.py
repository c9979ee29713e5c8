"""Seeds derived from what they are for. No global generator is touched here."""

import hashlib


def derive(root: int, *purpose: str | int) -> int:
    """A seed in [0, 2**32) that depends on its purpose, never on order, rank or restart.

    >>> derive(0, "mask", "ab12", 30, 4) == derive(0, "mask", "ab12", 30, 4)
    True
    """
    text = "/".join(str(part) for part in (root, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
