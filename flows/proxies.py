"""What a proxy in the environment must not do: stand between this process and local servers."""

from __future__ import annotations

import os
from importlib.util import find_spec

from fairgate.support.addresses import is_http_address

LOCAL = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy")
_ASIDE = "FAIRGATE_SET_ASIDE_"


def spare_local_servers() -> None:
    """Let this process and its children talk to servers on this machine without a proxy.

    A proxy that HTTP clients cannot use is set aside for this process: they would fail on it,
    whatever they ask. Its children get it back from `users_environment`, so that the one that needs
    it says what is wrong with it.
    """
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in spared.split(",") if host.strip()]
    joined = ",".join(dict.fromkeys([*hosts, *LOCAL]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = joined
    for name in [name for name, value in os.environ.items() if name.lower() in _PROXIES and value and not _is_usable(value)]:
        os.environ[_ASIDE + name] = os.environ.pop(name)


def _is_usable(proxy: str) -> bool:
    if proxy.lower().startswith(("socks5://", "socks5h://")):
        return find_spec("socksio") is not None
    return is_http_address(proxy if "://" in proxy else f"http://{proxy}")


def users_environment() -> dict[str, str]:
    """The environment with the proxies that were set aside."""
    return {name.removeprefix(_ASIDE): value for name, value in os.environ.items()}
