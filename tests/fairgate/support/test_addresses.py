from __future__ import annotations

import pytest

from fairgate.support.addresses import is_http_address


@pytest.mark.parametrize("text", ["http://host", "https://fair:s3cr%2Fet@[::1]:5000/a?b=c", "http://127.0.0.1:4200/api"])
def test_an_address_of_a_web_server(text: str) -> None:
    assert is_http_address(text)


WRONG = ["", "host:80", "http://", "http://:80", "http://h:port", "http://h:99999", "http://h:0", "http://u:1/x@h", "http://[h", "ftp://h"]


@pytest.mark.parametrize("text", [*WRONG, "http://h ", "http://h\n"])
def test_what_libraries_would_take_apart_otherwise_is_none(text: str) -> None:
    assert not is_http_address(text)
