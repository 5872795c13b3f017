"""Who may reach the server is settled before it starts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ahl_runtime.http.errors import ServerError
from ahl_runtime.http.settings import Settings, check_exposure

TOKEN = "c3b1f5a2" * 4


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AHL_TOKEN", raising=False)


def test_it_listens_to_this_device_alone_by_default() -> None:
    settings = Settings()
    assert settings.loopback
    assert settings.token() is None
    check_exposure(settings, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "line-3.factory", ""])
def test_others_may_reach_it_only_with_a_token_or_certificates(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="can be reached from outside this device: give a token"):
        check_exposure(Settings(host=host), None)
    check_exposure(Settings(host=host), TOKEN)
    pem = tmp_path / "x.pem"
    check_exposure(Settings(host=host, certificate=pem, key=pem, client_authority=pem), None)
    with pytest.raises(ServerError):
        check_exposure(Settings(host=host, certificate=pem, key=pem), None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(Settings(host=host), None)


def test_tls_settings_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give both"):
        Settings(certificate=tmp_path)
    with pytest.raises(ValidationError, match="client_authority needs certificate"):
        Settings(client_authority=tmp_path)


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o640)
    assert Settings(token_file=file).token() == TOKEN
    monkeypatch.setenv("AHL_TOKEN", TOKEN[::-1])
    assert Settings().token() == TOKEN[::-1]
    assert Settings(token_file=file).token() == TOKEN


@pytest.mark.parametrize("body", [b"short", b"", b"with spaces in its middle", b"\xff" * 32, b"\x00" * 32, b"x" * 5000])
def test_a_bad_token_is_refused_and_never_said(body: bytes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(body)
    file.chmod(0o600)
    with pytest.raises(ServerError, match="openssl rand") as refused:
        Settings(token_file=file).token()
    if body:
        assert body.decode("latin-1") not in str(refused.value)


def test_a_token_file_that_anyone_reads_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with pytest.raises(ServerError, match="chmod o="):
        Settings(token_file=file).token()
    with pytest.raises(ServerError, match="cannot be read"):
        Settings(token_file=tmp_path / "none").token()
