"""Tokens are kept as digests, and without one nobody is reached from elsewhere."""

import hashlib
from pathlib import Path

import pytest

from visionprefer.errors import InputError
from visionprefer_serve.access import allowed, check_host, token_digests

TOKEN = "sixteen-characters"  # noqa: S105


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISIONPREFER_TOKENS", raising=False)


def test_tokens_come_from_a_file_or_the_environment_and_only_digests_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert token_digests() == []
    monkeypatch.setenv("VISIONPREFER_TOKENS", f" {TOKEN}  another-of-sixteen ")
    assert token_digests() == [hashlib.sha256(each).hexdigest() for each in (TOKEN.encode(), b"another-of-sixteen")]
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n\n")
    assert token_digests(file) == token_digests()[:1]


@pytest.mark.parametrize(
    ("text", "told"), [("", "holds no token"), ("short", "token 1 has 5 characters"), ("ü" * 20, "token 1")]
)
def test_what_is_no_token_is_told_without_showing_it(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InputError, match=told) as error:
        token_digests(file)
    assert not text or text not in str(error.value)
    with pytest.raises(InputError, match="no file of tokens"):
        token_digests(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("header", "may"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer ", False),
        ("", False),
        (None, False),
        ("Bearer \udce9", False),
    ],
)
def test_only_a_bearer_of_a_token_may_ask(monkeypatch: pytest.MonkeyPatch, header: str | None, may: bool) -> None:
    monkeypatch.setenv("VISIONPREFER_TOKENS", f"another-of-sixteen {TOKEN}")
    assert allowed(header, token_digests()) is may


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_without_a_token_only_loopback_is_listened_on(host: str, local: bool) -> None:
    check_host(host, ["digest"])
    if local:
        check_host(host, [])
        return
    with pytest.raises(InputError, match=f"--host {host} is reached from other machines"):
        check_host(host, [])
