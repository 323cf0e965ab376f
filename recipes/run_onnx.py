"""Classify a recording with an exported model: onnxruntime and numpy, without PyTorch and audiostride.

Data: a model of `audiostride export RUN -o model.onnx` and a recording at its sample rate.
Command: python recipes/run_onnx.py model.onnx recording.wav
Expected: a label for each window and one for the clip, the same as `audiostride predict` gives, in less than a second.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

model, recording = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
rate, window = int(facts["sample_rate"]), int(facts["window_samples"])
if facts["input"] != "waveform":
    sys.exit(f"{model} takes log-mel spectrograms; export it again with --input waveform")
samples, found_rate = soundfile.read(recording, dtype="float32", always_2d=True)
if found_rate != rate:
    sys.exit(f"{recording} must be at {rate} Hz, got {found_rate} Hz; resample it first")
waveform = samples.mean(axis=1)
padded = np.pad(waveform, (0, -len(waveform) % window)).reshape(-1, window)
weights = np.minimum(len(waveform) - window * np.arange(len(padded)), window) / window  # shares of audio
outputs = json.loads(facts["outputs"])
for task, names in json.loads(facts["tasks"]).items():
    logits = np.concatenate([session.run([outputs[task]], {"waveform": part[None]})[0] for part in padded])
    clip = np.average(logits, axis=0, weights=weights)
    if task in json.loads(facts.get("multi_label", "[]")):  # a sigmoid for each class
        for number, row in [*enumerate(logits), (None, clip)]:
            place = "clip" if number is None else f"{number * window / rate:g} s"
            found = [f"{names[k]} ({1 / (1 + np.exp(-row[k])):.3f})" for k in np.flatnonzero(row >= 0)]
            print(f"{task}, {place}: {', '.join(found) or '-'}")
        continue
    for number, row in enumerate(logits):
        print(f"{task}, {number * window / rate:g} s: {names[row.argmax()]}")
    print(f"{task}, clip: {names[clip.argmax()]} ({1 / np.exp(clip - clip.max()).sum():.3f})")  # its softmax
