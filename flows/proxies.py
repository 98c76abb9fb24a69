"""What a proxy in the environment must not do: stand between this process and local servers."""

from __future__ import annotations

import os
from importlib.util import find_spec

LOCAL = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy")
_ASIDE = "FAIRGATE_SET_ASIDE_"


def spare_local_servers() -> None:
    """Let this process and its children talk to servers on this machine without a proxy.

    A SOCKS proxy is set aside for this process if the package that HTTP clients need for one is
    missing: they would fail on it, whatever they ask. Its children get it back from
    `users_environment`.
    """
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in spared.split(",") if host.strip()]
    joined = ",".join(dict.fromkeys([*hosts, *LOCAL]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined
    if find_spec("socksio") is None:
        for name in [name for name, value in os.environ.items() if name.lower() in _PROXIES and value.lower().startswith("socks")]:
            os.environ[_ASIDE + name] = os.environ.pop(name)


def users_environment() -> dict[str, str]:
    """The environment with the proxies that were set aside."""
    return {name.removeprefix(_ASIDE): value for name, value in os.environ.items()}
