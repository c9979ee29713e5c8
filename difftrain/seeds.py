"""Random seeds derived from their purpose, so that no code needs a global random generator."""

import hashlib


def derive(root: int, *purpose: str | int) -> int:
    """A seed in [0, 2**32) that depends only on root and purpose, not on order, rank or restart.

    >>> derive(0, "mask", "ab12", 30, 4) == derive(0, "mask", "ab12", 30, 4)
    True
    """
    text = "/".join(str(part) for part in (root, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
