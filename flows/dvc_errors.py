"""What DVC says when it fails, and what to do about it."""

from __future__ import annotations

import re

# The first pattern that DVC's words match gives the remedy.
_REMEDIES = (
    (
        r"outside of git repository",
        "`data`, or a folder below it, is a symbolic link out of the repository, and DVC cannot track what lies there: "
        "move it back, mount the other disk at that place, or move the whole project to the other disk",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "free some space (`dvc gc -w` drops cached outputs that no commit here uses), run again",
    ),
    (
        r"Permission denied|Operation not permitted|Read-only file system",
        "make the project and DVC's cache writable for you; the path may belong to another user (`ls -l`)",
    ),
    (r"ignored by|dvc-ignored", "take the pattern out of .dvcignore: DVC sees no path that it matches"),
    (r"RWLock", "see that no other dvc runs in this project, then remove .dvc/tmp/rwlock; it is left over from a crash"),
    (r"Unable to acquire lock", "wait for the other dvc; if none runs, remove .dvc/tmp/lock"),
    (r"is not a git repository", "run `git init` here, or let DVC work without git: `dvc config core.no_scm true`"),
    (r"not inside of a DVC repository", "run from the project's root, which holds .dvc; a folder that is none becomes one by `dvc init`"),
    (r"dvc\.lock", "delete dvc.lock, or restore it from git; what is in .dvc/cache is taken from there and not run again"),
    (r"dvc\.yaml", "correct dvc.yaml, or restore it from git (`git checkout dvc.yaml`)"),
    (r"config file error|configuration error", "correct .dvc/config and .dvc/config.local, or restore them from git"),
    (r"^output '.*' does not exist", "the stage did not write this output: look at its own words above"),
    (r"Not a directory|File exists|Is a directory", "move away what stands at this path, run again"),
    (r"database|disk I/O error", "remove .dvc/tmp and the folder in `dvc config core.site_cache_dir`; DVC makes them again"),
)
_OTHER = "see DVC's own words above; finished stages are reused by the next run"


def dvc_remedy(words: str) -> str:
    """What to do about these words of DVC."""
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, words, flags=re.MULTILINE)), _OTHER)


def dvc_reason(output: str) -> str:
    """DVC's own reason in the output of `dvc repro`; empty if it gives none."""
    reasons = re.findall(r"ERROR: (?:failed to reproduce '[^']*': )?(.+(?:\n(?!ERROR|\n).+)*)", output, flags=re.MULTILINE)
    return reasons[-1].strip() if reasons else ""
