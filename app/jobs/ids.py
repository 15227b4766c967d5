"""Identifiers that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32)."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """For instance `mrg_01jdz8k3n4q5r6s7t8v9w0x1y2`."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
