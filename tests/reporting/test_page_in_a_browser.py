"""The page in a browser: no error, no request, sounds that play, a line that follows them, keys that step through."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiostride.reporting import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Presses keys, waits for what they start, and leaves what it saw in the title.
PROBE = """<script>
const seen = { errors: [], requests: [] };
addEventListener("error", event => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", event => seen.errors.push(String(event.reason)));
const wait = ms => new Promise(done => setTimeout(done, ms));
const press = key => dispatchEvent(new KeyboardEvent("keydown", { key }));
const sounds = () => [...document.querySelectorAll("audio")];
const playing = () => sounds().findIndex(sound => !sound.paused);
(async () => {
  seen.sounds = sounds().length;
  seen.lines = [...document.querySelectorAll(".spectrogram i")].filter(line => !line.hidden).length;
  press("j"); await wait(400);
  seen.first = playing();
  sounds()[0].currentTime = 0.25; await wait(200);  // in the time that the test makes, sounds stand still
  sounds()[0].dispatchEvent(new Event("timeupdate"));
  seen.place = parseFloat(document.querySelectorAll(".spectrogram i")[0].style.left);
  press("j"); await wait(200);
  seen.second = playing();
  press("k"); await wait(200);
  seen.back = playing();
  press("x"); seen.other = playing();
  const names = performance.getEntriesByType("resource").map(entry => entry.name);
  seen.requests = names.filter(name => !/^data:/.test(name));
  document.title = JSON.stringify(seen);
})();
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_sounds_play_and_keys_step_through_them(make_run: Callable[..., Path], tmp_path: Path, dark: bool) -> None:
    page = tmp_path / "page.html"
    page.write_text(report(make_run(tmp_path / "run")).html.replace("</body>", PROBE), encoding="utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={tmp_path}/b",
    ]
    command += ["--autoplay-policy=no-user-gesture-required", "--virtual-time-budget=4000", "--dump-dom"]
    command += ["--force-dark-mode"] * dark + [f"file://{page}"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None
    seen: dict[str, Any] = json.loads(found[1].replace("&amp;", "&"))
    assert (seen["errors"], seen["requests"]) == ([], [])
    assert seen["sounds"] > 2
    assert seen["lines"] == 0, "before anything plays"
    assert (seen["first"], seen["second"], seen["back"], seen["other"]) == (0, 1, 0, 0)
    assert seen["place"] == pytest.approx(50, abs=5), "percent, of the clips of half a second"
