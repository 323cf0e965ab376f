"""Where in a clip a class was heard: places that add up to logits, what is marked, and its outline on the page."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from examples import make_classifier, noise
from torch import nn

from audiostride.reporting import report
from audiostride.reporting.evidence import add_up_places, find_evidence
from audiostride.reporting.style import trace_outline


@pytest.mark.parametrize("settings", [{}, {"head_pooling": "both"}, {"head_pooling": "mean"},
    {"encoder": "bcresnet", "width": 1.0}])  # fmt: skip
def test_places_add_up_to_the_logit(settings: dict[str, Any]) -> None:
    model = make_classifier(**settings)
    bands = model.frontend(noise(3, 16000) / 10)
    maps = model.encoder(model.normalise(bands))
    head = next(iter(model.heads))
    assert isinstance(head, nn.Linear)
    kind = model.config.head_pooling or ("mean" if "encoder" in settings else "max")
    for index, weight in enumerate(head.weight):
        places = add_up_places(maps, weight, kind)
        assert places.shape == (3, *maps.shape[2:])
        logits = model.classify_spectrogram(bands)["word"][:, index]
        torch.testing.assert_close(places.sum(dim=(1, 2)) + head.bias[index], logits, rtol=1e-4, atol=1e-4)


def test_places_are_those_of_plain_loops() -> None:
    maps, weight = noise(1, 2, 2, 3), torch.tensor([2.0, -1.0, 0.5, 3.0])
    expected = torch.zeros(2, 3)
    for c in range(2):
        flat = maps[0, c].flatten().tolist()
        place = flat.index(max(flat))
        expected[place // 3, place % 3] += weight[c] * max(flat)
        expected += weight[2 + c] * maps[0, c] / 6
    torch.testing.assert_close(add_up_places(maps, weight, "both")[0], expected)


class OnePlace(nn.Module):
    """An encoder whose only channel is the mean level of every 20 frames and 16 bands."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, (20, 16))


def test_what_is_loud_is_marked_and_the_logit_falls_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_classifier(tasks={"word": ["no", "yes"]}).freeze()
    object.__setattr__(model.config, "head_pooling", "max")
    model.encoder, model.input_norm = OnePlace(), nn.Identity()  # type: ignore[assignment]
    monkeypatch.setattr(model, "normalise", lambda bands: bands.unsqueeze(1))
    model.heads = nn.ModuleList([nn.Linear(1, 2)])
    with torch.no_grad():
        model.heads[0].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    samples = np.zeros(40000, np.float32)  # 2.5 s: the third window is filled up
    samples[25600:28800] = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(3200) / 16000)  # 1.6 to 1.8 s
    found = find_evidence(model, samples, "word", "yes")
    assert found is not None
    assert found.marked.shape == (250, 64)
    frames, bands = np.nonzero(found.marked)
    loudest = (165, int(torch.argmax(model.frontend(torch.from_numpy(samples[None]))[0, 165])))
    assert found.marked[loudest]
    assert found.marked.mean() == pytest.approx(0.1, abs=0.05)
    assert set(frames[bands == loudest[1]]) >= set(range(160, 180))
    assert found.fall > 3 * max(found.random_fall, 0.01)
    other = find_evidence(model, samples, "word", "no")
    assert other is not None
    assert not other.marked[loudest], "it speaks against no"


def test_networks_without_maps_have_none() -> None:
    pytest.importorskip("torchvision")
    model = make_classifier(encoder="torchvision:resnet18", width=1.0).freeze()
    assert find_evidence(model, np.zeros(16000, np.float32), "word", "yes") is None


def test_an_outline_goes_around_what_is_marked() -> None:
    marked = np.zeros((4, 3), bool)
    marked[1:3, 0] = True  # two frames of the lowest band: the lowest row of a picture of 3 rows
    marked[3, 2] = True
    path = trace_outline(marked)
    lines = re.findall(r"M(\d+) (\d+)([HV])(\d+)", path)
    assert "".join(f"M{x} {y}{way}{end}" for x, y, way, end in lines) == path
    found = set()
    for x, y, way, end in lines:
        low, high = sorted((int(x if way == "H" else y), int(end)))
        found |= {(way, int(y if way == "H" else x), place) for place in range(low, high)}
    expected = {("V", 1, 2), ("V", 3, 2), ("H", 3, 1), ("H", 3, 2), ("H", 2, 1), ("H", 2, 2)}
    assert found == expected | {("V", 3, 0), ("V", 4, 0), ("H", 0, 3), ("H", 1, 3)}


def test_the_page_outlines_its_clips_and_says_what_that_is_worth(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run")).html
    assert page.count("<svg viewBox=") >= page.count('<figure data-seconds="') > 0
    told = re.findall(r"logit falls by (-?[\d.]+) on average, without a random tenth by (-?[\d.]+)\.", page)
    assert told
