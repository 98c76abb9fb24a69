"""A project and its registry as an earlier version of the code left them."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from pathlib import Path

FOLDER = Path(__file__).with_name("old_clone")


def restore(root: Path, migrated: Path) -> Path:
    """Put the old project into `root`, with the rows of its registry in a new MLflow database.

    Args:
        root: where the project is put; texts that name the old project's folder name this one.
        migrated: an empty MLflow database.
    """
    for source in sorted((FOLDER / "project").rglob("*")):
        if source.is_file():
            target = root / source.relative_to(FOLDER / "project")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text(encoding="utf-8").replace("{ROOT}", str(root)), encoding="utf-8")
    weights = base64.b64decode((FOLDER / "model.safetensors.b64").read_text())
    for config in root.rglob("generation_config.json"):  # beside every copy of the weights
        config.with_name("model.safetensors").write_bytes(weights)
    shutil.copy(migrated, root / "mlflow.db")
    database = sqlite3.connect(root / "mlflow.db")
    for line in (FOLDER / "registry.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.replace("{ROOT}", str(root)))
        names = ", ".join(f'"{name}"' for name in entry["row"])
        places = ", ".join("?" for _ in entry["row"])
        database.execute(f'INSERT OR REPLACE INTO "{entry["table"]}" ({names}) VALUES ({places})', list(entry["row"].values()))
    database.commit()
    database.close()
    return root
