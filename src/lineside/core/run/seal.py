"""Seals: what was written is hashed, so that an edit or a cut is noticed when it is read again.

Without a key a seal is a SHA-256: it finds damage and edits by hand, and whoever edits on purpose
can recompute it. With a key (``--key FILE``, or the variable LINESIDE_KEY_FILE) there is also an
HMAC-SHA256 (RFC 2104), which nobody can make without the key; its file lies outside of the run.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError
from lineside.core.run.files import canonical, read_json, sha256, write_json

KEY_VARIABLE = "LINESIDE_KEY_FILE"
LEAST_BYTES, MOST_BYTES = 16, 4096
SEAL, SIGNATURE = "sha256", "hmac"
"""Names under which a sealed JSON object holds its hash, and its HMAC if there is a key."""
MAKE_KEY = "make one: head -c 32 /dev/urandom > FILE"


def key() -> bytes | None:
    """Return the user's key, None if none is given.

    Raises:
        UserError: if it cannot be read, or is too short to be one.
    """
    name = os.environ.get(KEY_VARIABLE, "")
    if not name:
        return None
    try:
        if not Path(name).is_file():
            raise UserError(f"the key {name} is not a file", MAKE_KEY)
        with Path(name).open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"the key {name} cannot be read: {error.strerror}", MAKE_KEY) from error
    if not LEAST_BYTES <= len(content) <= MOST_BYTES:
        raise UserError(
            f"the key {name} does not have {LEAST_BYTES} to {MOST_BYTES} bytes", MAKE_KEY
        )
    return content


def digest_of(content: bytes, secret: bytes | None) -> str:
    """Return the hexadecimal SHA-256, or HMAC-SHA256 if there is a key."""
    return sha256(content) if secret is None else hmac.new(secret, content, "sha256").hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal, and its signature if there is a key."""
    plain = {name: entry for name, entry in value.items() if name not in (SEAL, SIGNATURE)}
    content, secret = canonical(plain), key()
    seals = {SEAL: sha256(content)}
    if secret is not None:
        seals[SIGNATURE] = digest_of(content, secret)
    return {**plain, **seals}


def check_seal(path: Path, value: Any, hint: str) -> dict[str, Any]:
    """Return what `sealed` was given, and which nobody has changed since.

    Args:
        path: Where it was read, for the error.
        value: What was read.
        hint: What a user can do about a broken seal.

    Raises:
        UserError: if it is no object, was altered, or is not signed with the key that is given.
    """
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object", hint)
    plain = {name: entry for name, entry in value.items() if name not in (SEAL, SIGNATURE)}
    content, secret = canonical(plain), key()
    if value.get(SEAL) != sha256(content):
        raise UserError(f"{path} was altered: it does not fit its seal", hint)
    if secret is not None:
        signature = value.get(SIGNATURE)
        if not isinstance(signature, str):
            raise UserError(f"{path} is not signed", "make it with --key, or leave --key out")
        if not hmac.compare_digest(signature.encode(), digest_of(content, secret).encode()):
            raise UserError(
                f"{path} was altered, or signed with another key than the one that is given", hint
            )
    return plain


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, atomically."""
    write_json(path, sealed(value))


def read_sealed(path: Path, hint: str) -> dict[str, Any]:
    """Return what `write_sealed` wrote.

    Raises:
        UserError: if it is missing, damaged or altered; see `check_seal`.
    """
    try:
        value = read_json(path)
    except UserError as error:
        raise UserError(error.message, hint) from error
    return check_seal(path, value, hint)
