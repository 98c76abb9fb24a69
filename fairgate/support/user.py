"""Who runs a command: the author of a run, whom a second person must not be."""

from __future__ import annotations

import getpass
from pathlib import Path

from fairgate.support.errors import FairgateError


def user_name() -> str:
    """The user's name, from LOGNAME, USER, LNAME, USERNAME or the system's list of users.

    Raises:
        FairgateError: no name anywhere, as for the user of a container without an entry in
            /etc/passwd.
    """
    try:
        name = getpass.getuser().strip()
    except (ImportError, KeyError, OSError):
        name = ""
    if not name:
        raise FairgateError(
            "this user has no name, so a run would have no author and could never be promoted",
            where="LOGNAME",
            remedy="set LOGNAME to the name of who runs this",
        )
    return name


def require_user() -> None:
    """Require a name, and a home folder, in which libraries keep their settings.

    Raises:
        FairgateError: one of the two is missing.
    """
    user_name()
    try:
        Path.home()
    except RuntimeError:
        remedy = "set HOME to a folder that this user may write"
        raise FairgateError("this user has no home folder", where="HOME", remedy=remedy) from None
