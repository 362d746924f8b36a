"""Seeds derived from content, so that shards, batch sizes and order change nothing."""

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A stable 63-bit seed from names, e.g. (run seed, question_id, node path, role)."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def unit_interval(*parts: str | int) -> float:
    """A stable number in [0, 1) from names, for hash-based splits and draws."""
    return derive_seed(*parts) / 2**63
