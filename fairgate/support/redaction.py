"""Keep passwords and tokens out of everything that a user, a log or a record gets to see."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

HIDDEN = "***"
# Shorter values and parts of values are common words, and hiding them would spoil every sentence.
_SHORTEST_VALUE = 6
_SHORTEST_PART = 4
_SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|ACCESS_KEY|ACCESS_KEY_ID|API_KEY|AUTH_STRING)$", re.IGNORECASE)
# `eos_token: </s>` is no secret, so a bare `token` counts in a URI's query alone.
_QUERY = r"[?&;][\w.\-]*(?:password|passwd|pwd|secret|token|key|signature|credential|sig|auth)[\w.\-]*="
_ASSIGNED = r"(?:password|passwd|secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|(?:access|auth|api|hf|refresh|session|security)[_-]?token)"
_PORT = r"\d{1,5}(?:[\s/?#'\",;)\]>`}:]|\.?(?:\s|$))"
# Each pattern has one group: what stays in front of the hidden text.
_PATTERNS = [
    # Everything up to the last @ of a word is user and password: a password may hold any delimiter.
    re.compile(r"(://)[^\s'\"<>]*(?=@)"),
    # A URI that lacks its @host: what stands in the port's place and is no port.
    re.compile(rf"(://[^\s:/@'\"\[\]]*:)(?!{_PORT})[^\s'\"]+"),
    re.compile(rf"({_QUERY})[^\s'\"&#;<>]+", re.IGNORECASE),
    re.compile(rf"(\b[\w.\-]*{_ASSIGNED}['\"]?\s*[=:]\s*['\"]?)[^\s'\"&;,]+", re.IGNORECASE),
    re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=\-]{6,}"),
    re.compile(r"(\bhf_)[^\s'\"&;,)]{4,}"),
    re.compile(r"(\b(?:AKIA|ASIA))[A-Z0-9]{12,}"),
]


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without any part of a password or token, each replaced by three stars.

    Hidden is what looks like a secret (user and password of a URI, `?token=...`, `hf_...`), and
    what the environment says is one: the value of a variable such as HF_TOKEN, and the password in
    a URI such as MLFLOW_TRACKING_URI, whole, in parts, percent-encoded and decoded.

    Args:
        text: an error, a line of a log, a traceback.
        environment: None means this process's own.
    """
    for secret in sorted(_secrets(os.environ if environment is None else environment), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def _secrets(environment: Mapping[str, str]) -> set[str]:
    """Every spelling in which a library may show a secret of the environment."""
    spelled = set()
    for value in environment.values():
        for secret in _passwords(value):
            parts = re.split(r"\W+", secret)
            spelled |= {spelling for part in (secret, *parts) for spelling in _spellings(part) if len(spelling) >= _SHORTEST_PART}
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            spelled |= {spelling for spelling in _spellings(value.strip()) if len(spelling) >= _SHORTEST_VALUE}
    return spelled


def _passwords(value: str) -> Iterator[str]:
    """The passwords in a URI; a user without one is a token."""
    scheme, _, rest = value.strip(" '\"").partition("://")
    if not rest or not re.fullmatch(r"[a-zA-Z][\w+.\-]*", scheme):
        return
    credentials, at, _ = rest.rpartition("@")
    if at:
        yield credentials.partition(":")[2] or credentials
    elif re.match(rf"[^/:\[]*:(?!{_PORT}|\d{{1,5}}$)", rest):
        yield rest.partition(":")[2]  # the URI lacks its @host
    if query := re.search(rf"{_QUERY}(.+)", value, re.IGNORECASE):
        yield query[1]  # to the end: a password that is not encoded may hold & and #


def _spellings(secret: str) -> set[str]:
    decoded = unquote(secret)
    return {secret, decoded, quote(decoded, safe=""), quote(decoded), repr(secret)[1:-1], ascii(secret)[1:-1]}
