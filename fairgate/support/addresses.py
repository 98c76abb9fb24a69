"""Addresses of servers, looked at before a library sees them."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_http_address(text: str) -> bool:
    """Whether `text` is a URL of a web server that every library takes apart alike.

    No error is raised, because one would quote the part that is wrong, and that may be a password.
    """
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    # An @ behind the host ends a password that holds a delimiter.
    behind = parts.path + parts.query + parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and "@" not in behind
