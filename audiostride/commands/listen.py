"""``audiostride listen``."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from audiostride.checks import check_count
from audiostride.commands.predict import add_event_options, read_threshold
from audiostride.errors import InputError
from audiostride.wording import count_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_BYTES = 1 << 16
BLOCK_S = 0.1  # of a sound card
ENCODINGS = {"s16le": ("<i2", 1 / 32768), "f32le": ("<f4", 1.0)}


def build_parser() -> ArgumentParser:
    """The options of ``audiostride listen``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    parser.add_argument(
        "--from", dest="source", default="-",
        help="-: raw samples on standard input; card: the sound card (default: -)",
    )  # fmt: skip
    parser.add_argument("--rate", type=int, default=None, help="of the stream, in Hz (default: the model's)")
    parser.add_argument("--channels", type=int, default=1, help="of the stream, whose mean is heard")
    parser.add_argument("--encoding", choices=list(ENCODINGS), default="s16le", help="of the samples")
    parser.add_argument("--hop", type=float, default=None, help="seconds from window to window (default: half of one)")
    add_event_options(parser)
    parser.add_argument("--json", action="store_true", help="an event is a line of JSON")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")
    return parser


def run(arguments: Any) -> int:
    """Classify a stream as it comes, and tell each event once it has ended; Ctrl-C ends with a summary.

    arecord -f S16_LE -r 16000 | audiostride listen RUN
    """
    # Not at the top: help and errors of options need not wait for torch.
    from audiostride.inference.settings import PredictionSettings

    check_count("listen", channels=arguments.channels, **({} if arguments.rate is None else {"rate": arguments.rate}))
    if arguments.source not in ("-", "card"):
        raise InputError(
            f"listen: --from must be - or card, got {arguments.source}; of a file: ffmpeg -i FILE -f s16le -ac 1 - | "
            "audiostride listen RUN --rate HZ, or audiostride predict RUN FILE --events"
        )
    if arguments.source == "-" and sys.stdin.isatty():
        raise InputError(
            "listen: raw samples must come on standard input, got a terminal; arecord -f S16_LE -r 16000 | audiostride "
            "listen RUN, or --from card"
        )
    settings: dict[str, Any] = {
        "events": True,
        "threshold": read_threshold(arguments.threshold),
        "merge_gap_s": arguments.merge_gap,
        "min_windows": arguments.min_windows,
        "classes": arguments.classes,
        "background": arguments.background,
    }
    # What is wrong is said before the model is read, which takes torch.
    PredictionSettings.choose(**settings, hop_s=arguments.hop, thresholds={"": {"": 0.5}})

    # As above.
    from audiostride.audio.resampling import resample_blocks
    from audiostride.inference.listening import Listener
    from audiostride.models import load_classifier
    from audiostride.training.hardware import choose_device

    model = load_classifier(arguments.run, device=choose_device(arguments.device))
    hop_s = model.config.window_s / 2 if arguments.hop is None else arguments.hop
    chosen = PredictionSettings.choose(**settings, hop_s=hop_s, thresholds=model.thresholds.tasks)
    listener, rate = Listener(model, chosen), arguments.rate or model.config.sample_rate
    several, counts = len(model.config.tasks) > 1, Counter[str]()
    print(f"listening since {time.strftime('%Y-%m-%d %H:%M:%S')}; times are seconds from there", file=sys.stderr)

    def tell(events: Any) -> None:
        for start_s, end_s, task, label, score in events:
            counts[f"{task} {label}" if several else label] += 1
            if arguments.json:
                own = {"task": task} if several else {}
                event = {"start_s": start_s, "end_s": end_s, **own, "label": label, "score": score}
                print(json.dumps(event, ensure_ascii=False), flush=True)
            else:
                print(f"{start_s:10.2f} {end_s:10.2f}  {score:.3f}  {task + ' ' if several else ''}{label}", flush=True)

    before = signal.signal(signal.SIGTERM, _interrupt)  # how a service is stopped
    try:
        for block in resample_blocks(_read(arguments, rate), rate, model.config.sample_rate):
            tell(listener.add(block))
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    tell(listener.finish())
    found = "; ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
    later_s = hop_s * int((model.config.window_s + (arguments.merge_gap or 0)) / hop_s + 1e-9)
    lines = [
        f"heard {_duration(listener.heard_s)}, {count_of(counts.total(), 'event')}: {found}",
        f"{count_of(listener.n_windows, 'window')}, {1000 * listener.busy_s / max(1, listener.n_windows):.1f} ms each, "
        f"{listener.heard_s / max(1e-9, listener.busy_s):,.0f} x real time; the slowest block took "
        f"{1000 * listener.slowest_s:.0f} ms; an event is told {later_s:g} s after its end",
    ]
    print(*lines, sep="\n", file=sys.stderr)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"


def _read(arguments: Any, rate: int) -> "Iterator[NDArray[np.float32]]":
    """The stream in mono, block by block, at its own rate."""
    if arguments.source == "card":
        yield from _read_card(rate, arguments.channels)
        return
    # As in `run`.
    import numpy as np

    from audiostride.audio.resampling import mix_to_mono

    dtype, scale = ENCODINGS[arguments.encoding]
    frame = np.dtype(dtype).itemsize * arguments.channels
    rest = b""
    while block := os.read(sys.stdin.fileno(), BLOCK_BYTES):
        rest += block
        whole = len(rest) - len(rest) % frame
        if whole:
            frames = np.frombuffer(rest[:whole], dtype=dtype).astype(np.float32).reshape(-1, arguments.channels)
            rest = rest[whole:]
            yield mix_to_mono(frames) * np.float32(scale)


def _read_card(rate: int, channels: int) -> "Iterator[NDArray[np.float32]]":
    from audiostride.audio.resampling import mix_to_mono  # as in `run`

    try:
        import sounddevice  # an extra
    except (ImportError, OSError) as error:  # the second where the library of the system is missing
        raise InputError(
            f"listen: --from card needs the package sounddevice, got {error}; pip install 'audiostride[live]', or "
            "arecord -f S16_LE -r 16000 | audiostride listen RUN"
        ) from error
    with sounddevice.InputStream(samplerate=rate, channels=channels, dtype="float32") as card:
        while True:
            frames, lost = card.read(round(BLOCK_S * rate))
            if lost:
                print("listen: the machine is too slow, samples were lost", file=sys.stderr)
            yield mix_to_mono(frames)
