"""The page in headless Chromium, opened from disk."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

# Chromium's smallest window is wider than a phone, so the phone is a frame inside the window.
_PROBE = """<!doctype html><body style="margin:0">
<iframe id="page" src="data/reports/index.html" style="width:{width}px;height:{height}px;border:0;display:block"></iframe>
<p id="found"></p>
<script>
document.getElementById("page").onload = function () {{
  var inside = this.contentDocument, root = inside.documentElement;
  var hidden = [].filter.call(inside.querySelectorAll("h1, h2, svg.figure"), function (e) {{
    return !e.closest("[hidden], details") && e.getBoundingClientRect().right > {width} + 1;
  }});
  document.getElementById("found").textContent = [root.scrollWidth, inside.querySelectorAll("#timing-rows tr").length,
    inside.getElementById("timing").hidden, hidden.length, inside.querySelectorAll("svg.figure").length].join(" ");
}};
</script>"""


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium: install the distribution package `chromium`")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--allow-file-access-from-files"]
    flags += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run([program, *flags, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_from_disk_without_errors_or_overflow(run: Path, tmp_path: Path, width: int) -> None:
    probe = run / f"probe-{width}.html"
    probe.write_text(_PROBE.format(width=width, height=2000))
    picture = tmp_path / "page.png"
    shot = chromium(tmp_path, "--window-size=1300,2000", f"--screenshot={picture}", probe.as_uri())
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 50_000
    done = chromium(tmp_path, "--window-size=1300,2000", "--virtual-time-budget=5000", "--dump-dom", probe.as_uri())
    console = [line for line in (shot.stderr + done.stderr).splitlines() if "CONSOLE" in line or "ERR_" in line]
    assert console == []
    found = re.search(r'<p id="found">(\d+) (\d+) (\w+) (\d+) (\d+)</p>', done.stdout)
    assert found, done.stdout[-500:]
    scroll_width, timed, hidden, outside, figures = found.groups()
    assert int(scroll_width) == width and int(outside) == 0
    assert int(timed) == 1 and hidden == "false" and int(figures) >= 12
