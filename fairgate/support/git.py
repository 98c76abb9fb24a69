"""Ask git about the project's own repository, whatever the environment points at.

A hook, or a script that works on several repositories, leaves variables such as GIT_DIR. Git then
answers for that repository, wherever it is asked.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Those that choose a repository or a part of it (`git rev-parse --local-env-vars`). How git reaches
# others (GIT_SSH_COMMAND) and its settings (GIT_CONFIG_COUNT: safe.directory) stay.
_PLACES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_IMPLICIT_WORK_TREE",
)


def forget_repository() -> None:
    """Take the variables that choose a repository out of this process's environment.

    A command does so once, at its start, for git as DVC and MLflow call it.
    """
    for name in _PLACES:
        os.environ.pop(name, None)


def head_commit(folder: Path, tracked: str) -> str | None:
    """The commit that is checked out in the repository of `folder`.

    Args:
        folder: a folder of the project.
        tracked: a file below it that the repository must track. Otherwise `folder` only lies inside
            somebody else's repository.

    Returns:
        40 hexadecimal digits; None without git, repository, commit or the tracked file.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _PLACES}
    try:
        for command in (["git", "ls-files", "--error-unmatch", "--", tracked], ["git", "rev-parse", "--verify", "HEAD"]):
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
