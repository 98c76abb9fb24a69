"""No part of a password or token in what libraries say."""

from __future__ import annotations

import re
import string
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairgate.support.redaction import redact
from tests.project import REPOSITORY

# Upper-case letters: none of the messages below has a word of them.
_LETTERS = st.text(string.ascii_uppercase, min_size=4, max_size=8)
_PASSWORDS = st.lists(_LETTERS, min_size=1, max_size=4).flatmap(
    lambda words: st.lists(st.sampled_from("/@#?:&=%+! ~'\"é"), min_size=len(words) - 1, max_size=len(words) - 1).map(
        lambda marks: "".join(word + mark for word, mark in zip(words, [*marks, ""], strict=True))
    )
)
# Every address that the code advises, with the words around it.
ADVICE = {
    words
    for part in ("fairgate", "flows", "stages")
    for file in (REPOSITORY / part).rglob("*.py")
    for words in re.findall(r"write \w+://[^\"]*", file.read_text(encoding="utf-8"))
}
_SHAPES = st.sampled_from(
    [
        "postgresql+psycopg2://fair:{}@127.0.0.1:1/mlflow",
        "https://fair:{}@[::1]:5000/path",
        "https://{}@host/path",
        "mysql://fair:{}",
        "http://fair:{}/path",
        "https://host:5000/path?user=fair&password={}",
        "s3://AKIAABCDEFGHIJKLMNOP:{}@bucket/key",
        "https://host/?X-Amz-Signature={}#fragment",
    ]
)


def parts(password: str) -> list[str]:
    return [part for part in re.split(r"[^A-Z]+", password) if len(part) >= 4]


def libraries_say(uri: str) -> list[str]:
    """Sentences of the kind that libraries make of an address."""
    import requests
    from sqlalchemy.engine import make_url

    said = [f"could not connect to {uri}", f"could not connect to {uri!r}: refused", f"<a href={quote(uri)}>", str({"endpoint": uri})]
    for attempt in (lambda: urlsplit(uri).port, lambda: str(make_url(uri)), lambda: requests.Request("GET", uri).prepare().url):
        try:
            said.append(str(attempt()))
        except Exception as error:
            said.append(repr(error))
    return said


@settings(deadline=None)  # the first example imports the libraries
@given(password=_PASSWORDS, shape=_SHAPES, encoded=st.booleans())
def test_no_part_of_a_password_of_the_environment_is_said(password: str, shape: str, encoded: bool) -> None:
    assume("@" in shape or "@" not in password or encoded)  # without a host of its own, what follows the @ is one
    assume(shape != "https://{}@host/path" or ":" not in password or encoded)  # what stands before a colon is a user's name
    uri = shape.format(quote(password, safe="") if encoded else password)
    for sentence in libraries_say(uri):
        clean = redact(sentence, {"MLFLOW_TRACKING_URI": uri})
        assert not [part for part in parts(password) if part in clean], clean


@given(password=_PASSWORDS.filter(lambda password: not re.search(r"[\s'\"]", password)), shape=_SHAPES.filter(lambda shape: "@" in shape))
def test_no_password_in_a_uri_is_said_though_the_environment_does_not_know_it(password: str, shape: str) -> None:
    clean = redact(f"could not connect to {shape.format(password)}", {})
    assert not [part for part in parts(password) if part in clean], clean


@pytest.mark.parametrize(
    "text",
    [
        "401 for token hf_AbCdEfGhIjKl",
        "Authorization: Bearer abcdef.ghi-jkl",
        "FATAL: dsn host=db password=s3cret dbname=x",
        "{'aws_secret_access_key': 's3cret/with+marks='}",
        "key AKIAIOSFODNN7EXAMPLE is unknown",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    assert re.search(r"\*\*\*", clean := redact(text, {}))
    assert not re.search(r"AbCd|abcdef|s3cret|OSFODNN", clean)


def test_a_token_of_the_environment_is_hidden_in_every_spelling() -> None:
    token = "größe geheim"
    for spelling in (token, quote(token), repr(token), ascii(token)):
        clean = redact(f"bad header {spelling}", {"HF_TOKEN": token})
        assert (clean.strip("'") == clean and "geheim" not in clean) or clean.endswith("'***'")


@pytest.mark.parametrize(
    "text",
    [
        "no server at http://127.0.0.1:9/api",
        "no server at http://127.0.0.1:9.",
        "no server at http://[::1]:4200/api",
        *sorted(ADVICE),
        "sqlite:////home/ann/mlflow.db: unable to open",
        "eos_token: </s>, pad_token='<pad>' and token: 7",
        "password authentication failed for user fair",
        "owner/name@0123456789abcdef is not there",
        "false and true",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    ordinary = {"TOKENIZERS_PARALLELISM": "false", "PWD": "/home/ann", "CI_TOKEN": "true", "NOTE": "see http://h:9-no server at eos_token"}
    assert redact(text, ordinary) == text
