"""The page in a browser: no error, no request, sounds that play, a line that follows them, keys that step through."""

from collections.abc import Callable
from pathlib import Path

import browser
import pytest

from audiostride.reporting import report

PRESS = "key => dispatchEvent(new KeyboardEvent('keydown', { key }))"
PLAYING = "[...document.querySelectorAll('audio')].findIndex(sound => !sound.paused)"
LINES = "[...document.querySelectorAll('.spectrogram i')]"


@pytest.mark.skipif(browser.PROGRAM is None, reason="no browser is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_sounds_play_and_keys_step_through_them(make_run: Callable[..., Path], tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "page.html"
    file.write_text(report(make_run(tmp_path / "run")).html, encoding="utf-8")
    with browser.Browser(tmp_path / "profile", dark=dark) as page:
        page.open(file)
        assert page.run("document.querySelectorAll('audio').length") > 2
        assert page.run(f"{LINES}.filter(line => !line.hidden).length") == 0, "before anything plays"
        for key, playing in (("j", 0), ("j", 1), ("k", 0), ("x", 0)):
            page.run(f"({PRESS})('{key}')")
            assert page.run(PLAYING) == playing
        place = page.run(
            "(async () => { const sound = document.querySelector('audio'); sound.pause(); sound.currentTime = 0.25; "
            "await new Promise(done => sound.addEventListener('timeupdate', done, { once: true })); "
            f"return parseFloat({LINES}[0].style.left); }})()"
        )
        assert place == pytest.approx(50, abs=10), "percent, of the clips of half a second"
        shown = (
            "[...document.querySelectorAll('nav, audio, .spectrogram i')].filter(part => part.offsetWidth > 0).length"
        )
        assert page.run(shown) > 2
        page.show_as_printed()
        assert page.run(shown) == 0, "nothing can be pressed on paper"
        assert (page.problems, page.requests) == ([], [])


@pytest.mark.skipif(browser.PROGRAM is None, reason="no browser is installed")
def test_a_click_on_the_head_of_a_column_sorts_the_classes(make_run: Callable[..., Path], tmp_path: Path) -> None:
    names = ["owl", "bat", "frog", "newt"]
    made = report(make_run(tmp_path / "run", tasks={"kind": names}))
    (tmp_path / "page.html").write_text(made.html, encoding="utf-8")
    recall = made.tables["per_class"].set_index("class")["recall"]
    column = "[...document.querySelectorAll('table.sorted tbody tr')].map(row => row.cells[0].textContent)"
    head = "document.querySelectorAll('table.sorted thead th')"
    place = made.tables["per_class"].columns.get_loc("recall")
    with browser.Browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.run(column) == names
        page.run(f"{head}[{place}].querySelector('button').click()")
        falling = [recall[name] for name in page.run(column)]
        assert falling == sorted(recall, reverse=True)
        assert page.run(f"{head}[{place}].getAttribute('aria-sort')") == "descending"
        page.run(f"{head}[{place}].querySelector('button').click()")
        assert [recall[name] for name in page.run(column)] == sorted(recall)
        page.run(f"{head}[0].querySelector('button').click()")
        assert page.run(column) == sorted(names)
        assert page.problems == []
