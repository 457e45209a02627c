"""Who may ask: bearer tokens, of which the endpoint keeps digests only."""

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from visionprefer.errors import InputError

VARIABLE = "VISIONPREFER_TOKENS"
LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"]  # by which a browser or a client may call this machine
_SHORTEST = 16  # characters: whatever is shorter can be guessed


def token_digests(file: Path | None = None) -> list[str]:
    """SHA-256 digests of the tokens in a file, one a line, or else of those in VISIONPREFER_TOKENS, between spaces.

    Raises:
        InputError: if the file cannot be read or is empty, or a token is short or no header can carry it.
    """
    where = str(file or VARIABLE)
    try:
        text = file.read_text(encoding="utf-8") if file else os.environ.get(VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: no file of tokens that can be read: {type(error).__name__}") from None
    tokens = text.split()
    if file and not tokens:
        raise InputError(f"{where} holds no token: write one a line")
    for number, token in enumerate(tokens, 1):
        if len(token) < _SHORTEST or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise InputError(
                f"{where}: token {number} has {len(token)} characters: write at least {_SHORTEST}, of ASCII. "
                "To make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
    return [_digest(token) for token in tokens]


def allowed(authorization: str | None, digests: Sequence[str]) -> bool:
    """Whether an Authorization header carries one of the tokens; each is compared, in constant time."""
    scheme, _, token = (authorization or "").partition(" ")
    given = _digest(token.strip())
    matches = [hmac.compare_digest(given, digest) for digest in digests]
    return scheme.casefold() == "bearer" and any(matches)


def check_host(host: str, digests: Sequence[str]) -> None:
    """Raise InputError if the endpoint would listen beyond this machine without asking for a token."""
    if digests or is_loopback(host):
        return
    raise InputError(
        f"--host {host} is reached from other machines, and no token is asked for: set {VARIABLE} or write "
        "--tokens FILE, or leave --host out to listen on this machine alone"
    )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
