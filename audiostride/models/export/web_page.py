"""A classifier as one HTML page that runs it: for people without Python, from a file, without a network."""

import base64
import json
import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from audiostride import __version__
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.export.parity import Runner
from audiostride.models.export.stages import Stage, split_stages


def to_html(model: AudioClassifier) -> bytes:
    """A page that classifies recordings and what a microphone hears, in a browser: the frozen classifier and a script.

    It takes what the browser decodes, shows spectrogram, scores over time and events, and writes tables for Raven. It
    loads nothing. When it opens it compares its logits for a chirp with those that PyTorch gave here.

    Args:
        model: The classifier; it is not changed.

    Raises:
        InputError: See `split_stages`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiostride.models.export", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Neither a tag nor a comment may end the element that the numbers stand in.
    network = json.dumps(describe_network(model), ensure_ascii=False).replace("<", "\\u003c")
    page = environment.get_template("classifier.html.jinja")
    return page.render(config=model.config, network=Markup(network), version=__version__).encode()


def describe_network(model: AudioClassifier) -> dict[str, Any]:
    """What ``classifier.js`` runs: arrays as base64 of float32, and what its loops need to know."""
    config, network = model.config, split_stages(model, format="html")
    arrays: dict[str, NDArray[np.float32]] = {
        name: getattr(network, name) for name in ("norm_gain", "norm_offset", "head", "head_bias")
    }
    arrays |= {name: getattr(network.frontend, name) for name in ("window", "turns", "filters")}
    for number, stage in enumerate(network.stages):
        for name in ("kernel", "matrix", "bias", "gain", "offset"):
            if getattr(stage, name) is not None:
                arrays[f"stage_{number}_{name}"] = getattr(stage, name)
    chirp = make_chirp(config.window_samples)
    was_training = model.training
    with torch.no_grad():
        logits = torch.cat(list(model.eval()(torch.from_numpy(chirp)[None].to(next(model.parameters()))).values()), 1)
    model.train(was_training)
    frontend = asdict(network.frontend)
    return {
        "sample_rate": config.sample_rate,
        "window_samples": config.window_samples,
        "frames": config.window_frames,
        "mels": config.n_mels,
        "fmin_hz": config.fmin_hz,
        "fmax_hz": config.fmax_hz,
        "tasks": [asdict(task) for task in network.tasks],
        "background": [] if config.background_class is None else [config.background_class],
        "maximum": network.maximum,
        "mean": network.mean,
        "frontend": {name: value for name, value in frontend.items() if name not in arrays},
        "stages": [_describe_stage(stage) for stage in network.stages],
        "expected": [round(value, 6) for value in logits[0].double().tolist()],
        "arrays": {name: base64.b64encode(values.astype("<f4").tobytes()).decode() for name, values in arrays.items()},
    }


def _describe_stage(stage: Stage) -> dict[str, Any]:
    return {
        "along_mel": stage.axis == "mel",
        "lines": stage.lines,
        "n_in": stage.n_in,
        "n_out": stage.n_out,
        "channels_in": stage.channels_in,
        "channels_out": stage.channels_out,
        "taps": len(stage.kernel),
        "stride": stage.stride,
        "pools_taps": stage.pools_taps,
        "norm_first": stage.norm_first,
    }


def make_chirp(n_samples: int) -> NDArray[np.float32]:
    """What the page checks itself with: a tone that rises from 0 to a quarter of the rate, ``(n_samples,)``."""
    i = np.arange(n_samples, dtype=np.float64)
    return (0.3 * np.sin(math.pi / 4 * i * i / n_samples)).astype(np.float32)


# Reads windows from standard input, as float32, and writes the logits of all tasks.
_RUN = """
const network = %s;
const model = makeClassifier(network), bytes = require("fs").readFileSync(0), n = network.window_samples;
const samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const found = [];
for (let i = 0; i < samples.length; i += n) found.push([...model.classify(samples.subarray(i, i + n))]);
process.stdout.write(JSON.stringify(found));
"""


def find_node() -> str | None:
    """Node.js on the path, which runs the script of a page, or None."""
    return shutil.which("node")


def node_runner(content: bytes) -> Runner:
    """A function from a batch of waveforms to the logits of all tasks, by the page's own script in Node.js.

    Raises:
        InputError: No Node.js, or one that fails.
    """
    page, node = content.decode(), find_node()
    network, engine = (
        re.search(f'<script id="{name}"[^>]*>(.*?)</script>', page, re.S) for name in ("network", "engine")
    )
    if node is None or network is None or engine is None:
        raise InputError("export: comparing a page with PyTorch takes node on the path; got none")
    script = engine[1] + _RUN % network[1]
    sizes = [len(task["classes"]) for task in json.loads(network[1])["tasks"]]

    def run(inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "run.js"
            file.write_text(script, encoding="utf-8")
            made = subprocess.run([node, file], input=inputs.astype("<f4").tobytes(), capture_output=True)
        if made.returncode != 0:
            raise InputError(f"export: node must run the page's script, but says: {made.stderr.decode()[-500:]}")
        logits = np.array(json.loads(made.stdout), np.float32)
        return np.split(logits, np.cumsum(sizes)[:-1], axis=1)

    return run
