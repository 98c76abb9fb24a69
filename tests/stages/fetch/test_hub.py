from __future__ import annotations

from pathlib import Path

import pytest

from stages.fetch import hub as origin
from stages.fetch.errors import HashMismatch, Unavailable
from tests.hub import REVISION, Hub

WEIGHTS = "model.safetensors"


def fetch(hub: Hub, folder: Path, *names: str) -> list[str]:
    """Download into folder/out; returns the names there."""
    (folder / "out").mkdir(exist_ok=True)
    repository = origin.Repository(hub.name, hub.revision)
    origin.download(repository, origin.listing(repository).files, {name: name for name in names}, folder / "out", folder / "cache")
    return sorted(path.name for path in (folder / "out").iterdir())


def test_files_of_a_commit(hub: Hub, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path, "config.json", WEIGHTS) == ["config.json", WEIGHTS]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert not (tmp_path / "out" / WEIGHTS).is_symlink()
    assert origin.listing(origin.Repository(hub.name, hub.revision)).licence == "mit"


def test_second_run_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path, "config.json", WEIGHTS)
    hub.requests.clear()
    fetch(hub, tmp_path, "config.json", WEIGHTS)
    assert [request for request in hub.requests if "/resolve/" in request] == []


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_wrong_bytes_are_refused_and_not_kept(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.served[name] = bytes(len(hub.files[name]))
    with pytest.raises(HashMismatch, match=f"{name}: content hash is"):
        fetch(hub, tmp_path, name)
    assert list((tmp_path / "out").iterdir()) == []
    del hub.served[name]
    assert fetch(hub, tmp_path, name) == [name]


def test_another_commit_than_asked_for_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = hub.listing() | {"sha": "f" * 40}
    monkeypatch.setattr(Hub, "listing", lambda self: answer)
    with pytest.raises(HashMismatch, match="answers with commit ffff"):
        origin.listing(origin.Repository(hub.name, hub.revision))


def test_listed_file_that_is_gone(hub: Hub, tmp_path: Path) -> None:
    hub.gone.add(WEIGHTS)
    with pytest.raises(Unavailable, match="404"):
        fetch(hub, tmp_path, WEIGHTS)
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_is_not_listed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no file none\.json"):
        fetch(hub, tmp_path, "none.json")


@pytest.mark.parametrize("repository", [origin.Repository("tiny/model", "f" * 40), origin.Repository("tiny/none", REVISION)])
def test_unknown_repository_or_commit(hub: Hub, repository: origin.Repository) -> None:
    with pytest.raises(Unavailable, match=f"{repository}: (?s:.*)404(?s:.*)check id and commit"):
        origin.listing(repository)


def test_connection_cut_once_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.cuts[WEIGHTS] = 1
    assert fetch(hub, tmp_path, WEIGHTS) == [WEIGHTS]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert sum(request.startswith("GET") and WEIGHTS in request for request in hub.requests) == 2


def test_connection_cut_for_good_leaves_nothing_visible(hub: Hub, tmp_path: Path) -> None:
    hub.cuts[WEIGHTS] = 1000
    with pytest.raises(Unavailable, match="cannot be reached"):
        fetch(hub, tmp_path, WEIGHTS)
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "cache").rglob("snapshots/**/*.safetensors")) == []


def test_no_server(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"cannot be reached(?s:.*)local folder"):
        origin.listing(origin.Repository(hub.name, hub.revision))


def test_switched_off(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="unset HF_HUB_OFFLINE"):
        origin.listing(origin.Repository(hub.name, hub.revision))
    assert hub.requests == []


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
@pytest.mark.parametrize("token", ["hf_größe", "hf_s3 cret", "hf_s3\ncret", "'hf_s3cret'", "hf_s3\u200bcret"])
def test_what_is_no_token_is_said_without_it(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, token: str) -> None:
    monkeypatch.setenv(name, token)
    with pytest.raises(Unavailable, match=rf"^{name} is no token\nRemedy: ") as error:
        origin.listing(origin.Repository(hub.name, hub.revision))
    assert "s3" not in str(error.value) and "größe" not in str(error.value) and hub.requests == []


@pytest.mark.parametrize("token", ["", "  ", "hf_abc\n"])
def test_no_token_or_one_with_blanks_around_it_is_fine(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert origin.listing(origin.Repository(hub.name, hub.revision)).files


@pytest.mark.parametrize(
    "address",
    ["banana", "http://", "ftp://host", "http://host:port", "https://fair:s3cr/et@host", "http://ho\nst", "http://[host", "host:80"],
)
def test_what_is_no_address_of_a_hub_is_said(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(Unavailable, match=r"^HF_ENDPOINT: no address of a hub\nRemedy: ") as error:
        origin.listing(origin.Repository("tiny/model", REVISION))
    assert "s3cr" not in str(error.value)


@pytest.mark.parametrize("proxy", ["socks5://fair:s3cr-et@127.0.0.1:9", "http://fair:s3cr/et@127.0.0.1:9", "banana://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    from huggingface_hub import close_session

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    close_session()  # the client reads its proxies once
    try:
        with pytest.raises(Unavailable, match=r"the hub cannot be (asked|reached)[\s\S]*Remedy: ") as error:
            origin.listing(origin.Repository(hub.name, hub.revision))
    finally:
        close_session()
    assert "s3cr" not in str(error.value)
