"use strict";
/* The classifier: `makeClassifier(network)` gives the functions that run what `audiostride export` wrote. */

function readFloats(text) {
  const bytes = Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
  return Float64Array.from(new Float32Array(bytes.buffer)); // faster: nothing is rounded on the way
}

function makeClassifier(network) {
  const { frames, mels, window_samples: windowSamples, frontend } = network;
  const numbers = name => (network.arrays[name] === undefined ? null : readFloats(network.arrays[name]));
  const stages = network.stages.map((stage, i) => ({
    ...stage,
    kernel: numbers(`stage_${i}_kernel`), matrix: numbers(`stage_${i}_matrix`), bias: numbers(`stage_${i}_bias`),
    gain: numbers(`stage_${i}_gain`), offset: numbers(`stage_${i}_offset`),
  }));
  const [window, filters, turns] = ["window", "filters", "turns"].map(numbers);
  const [normGain, normOffset, head, headBias] = ["norm_gain", "norm_offset", "head", "head_bias"].map(numbers);
  const half = frontend.n_fft / 2;
  const fft = new Float64Array(2 * half), power = new Float64Array(half + 1);

  /* Power spectrum of the numbers in `fft`, by an FFT of half as many complex ones. */
  function computePower() {
    for (let i = 1, j = 0; i < half; i++) {
      let bit = half >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) for (let k = 0; k < 2; k++) [fft[2 * i + k], fft[2 * j + k]] = [fft[2 * j + k], fft[2 * i + k]];
    }
    for (let length = 2; length <= half; length *= 2)
      for (let begin = 0; begin < half; begin += length)
        for (let k = 0; k < length / 2; k++) {
          const turn = 4 * k * (half / length), a = 2 * (begin + k), b = a + length;
          const re = fft[b] * turns[turn] - fft[b + 1] * turns[turn + 1];
          const im = fft[b] * turns[turn + 1] + fft[b + 1] * turns[turn];
          fft[b] = fft[a] - re; fft[b + 1] = fft[a + 1] - im;
          fft[a] += re; fft[a + 1] += im;
        }
    for (let k = 0; k <= half; k++) {
      const a = 2 * (k % half), b = 2 * ((half - k) % half), cos = turns[2 * k], sin = turns[2 * k + 1];
      const oddRe = fft[a + 1] + fft[b + 1], oddIm = fft[b] - fft[a];
      const re = fft[a] + fft[b] + oddRe * cos - oddIm * sin, im = fft[a + 1] - fft[b + 1] + oddRe * sin + oddIm * cos;
      power[k] = (re * re + im * im) / 4;
    }
  }

  /* Natural log of mel powers, [frame][band], of as many samples as there are; frame i is centred on hop i. */
  function logMel(samples) {
    const count = Math.ceil(samples.length / frontend.hop_length), map = new Float32Array(count * mels);
    for (let frame = 0; frame < count; frame++) {
      const start = frame * frontend.hop_length - frontend.left;
      fft.fill(0);
      for (let i = Math.max(0, -start); i < Math.min(window.length, samples.length - start); i++)
        fft[i] = samples[start + i] * window[i];
      computePower();
      for (let band = 0, weight = 0; band < mels; band++) {
        const [first, n] = frontend.filter_bins[band];
        let sum = 0;
        for (let k = 0; k < n; k++) sum += filters[weight++] * power[first + k];
        map[frame * mels + band] = Math.log(Math.max(sum, frontend.power_floor));
      }
    }
    return map;
  }

  /* y[k] += the sum over r < count of x[r] * rows[r][k]; four rows at a time, which is twice as fast. */
  function addRows(y, to, x, from, count, rows, first, n) {
    let r = 0;
    for (; r + 3 < count; r += 4) {
      const x0 = x[from + r], x1 = x[from + r + 1], x2 = x[from + r + 2], x3 = x[from + r + 3];
      const row0 = first + r * n, row1 = row0 + n, row2 = row1 + n, row3 = row2 + n;
      for (let k = 0; k < n; k++)
        y[to + k] += x0 * rows[row0 + k] + x1 * rows[row1 + k] + x2 * rows[row2 + k] + x3 * rows[row3 + k];
    }
    for (; r < count; r++) for (let k = 0; k < n; k++) y[to + k] += x[from + r] * rows[first + r * n + k];
  }

  function rectifyAndNorm(stage, y, to) {
    for (let k = 0; k < stage.channels_out; k++) y[to + k] = Math.max(y[to + k], 0) * stage.gain[k] + stage.offset[k];
  }

  /* The convolution at one place of a line, with zeros beyond its ends. */
  function convolve(stage, line, place, y, to) {
    const { channels_in: n, channels_out: out, taps, kernel } = stage;
    for (let k = 0; k < out; k++) y[to + k] = stage.bias[k];
    const low = place - (taps >> 1), first = Math.max(0, -low), last = Math.min(taps, stage.n_in - low);
    addRows(y, to, line, (low + first) * n, (last - first) * n, kernel, first * n * out, out);
  }

  /* A convolution along one axis of a map [time][mel][channel], the pooling of that axis, ReLU and norm. */
  function runStage(stage, x) {
    const { lines, n_in: length, n_out: count, channels_in: n, channels_out: out, taps, matrix } = stage;
    const y = new Float64Array(lines * count * out), line = new Float64Array(length * n);
    const own = new Float64Array(stage.pools_taps ? taps * n : length * out);
    for (let j = 0; j < lines; j++) {
      const from = j * (stage.along_mel ? length : 1) * n, to = j * (stage.along_mel ? count : 1) * out;
      const stepIn = stage.along_mel ? n : lines * n, stepOut = stage.along_mel ? out : lines * out;
      for (let t = 0; t < length; t++)
        line.set(x.subarray(from + t * stepIn, from + t * stepIn + n), t * n);
      for (let t = 0; matrix && !stage.pools_taps && t < length; t++) {
        convolve(stage, line, t, own, t * out);
        if (stage.norm_first) rectifyAndNorm(stage, own, t * out);
      }
      for (let i = 0; i < count; i++) {
        const result = to + i * stepOut;
        if (!matrix) {
          convolve(stage, line, i * stage.stride, y, result);
        } else if (stage.pools_taps) {
          own.fill(0);
          for (let tap = 0; tap < taps; tap++) {
            const shift = tap - (taps >> 1), first = Math.max(0, -shift), last = Math.min(length, length - shift);
            addRows(own, tap * n, matrix, i * length + first, last - first, line, (first + shift) * n, n);
          }
          for (let k = 0; k < out; k++) y[result + k] = stage.bias[k];
          addRows(y, result, own, 0, taps * n, stage.kernel, 0, out);
        } else {
          addRows(y, result, matrix, i * length, length, own, 0, out);
        }
        if (!stage.norm_first) rectifyAndNorm(stage, y, result);
      }
    }
    return y;
  }

  /* The logits of one window of `windowSamples` samples in [-1, 1], of all tasks, one after another. */
  function classify(samples) {
    let map = logMel(samples);
    for (let i = 0; i < map.length; i++) map[i] = map[i] * normGain[i % mels] + normOffset[i % mels];
    for (const stage of stages) map = runStage(stage, map);
    const channels = stages[stages.length - 1].channels_out, places = map.length / channels;
    const largest = new Float32Array(channels).fill(-Infinity), sums = new Float64Array(channels);
    for (let i = 0; i < map.length; i++) {
      largest[i % channels] = Math.max(largest[i % channels], map[i]);
      sums[i % channels] += map[i];
    }
    const features = [...(network.maximum ? largest : []), ...(network.mean ? sums.map(sum => sum / places) : [])];
    return Float64Array.from(headBias, (bias, k) => {
      let sum = bias;
      for (let f = 0; f < features.length; f++) sum += head[k * features.length + f] * features[f];
      return sum;
    });
  }

  /* Probabilities: a softmax over the classes of a task, or a sigmoid of each where there may be several. */
  function scores(logits) {
    const found = new Float64Array(logits.length);
    for (const { first, classes, several } of network.tasks) {
      const own = logits.slice(first, first + classes.length), largest = Math.max(...own);
      const powers = own.map(x => Math.exp(several ? -x : x - largest)), sum = powers.reduce((a, b) => a + b, 0);
      found.set(powers.map(x => (several ? 1 / (1 + x) : x / sum)), first);
    }
    return found;
  }

  return { logMel, classify, scores, windowSamples, frames, mels };
}

/* The windows of a recording: they begin at multiples of the hop, and the last one reaches its end. */
function tile(nSamples, windowSamples, hop) {
  const count = 1 + Math.ceil(Math.max(0, nSamples - windowSamples) / hop);
  return Array.from({ length: count }, (_, i) => [i * hop, Math.min(i * hop + windowSamples, nSamples)]);
}

/* One window, filled up with zeros. */
function cutWindow(samples, start, windowSamples) {
  const own = new Float32Array(windowSamples);
  own.set(samples.subarray(start, start + windowSamples));
  return own;
}

/* Stretches of a recording that windows with a class of at least the threshold cover, as `audiostride predict --events`
   finds them: `rows` are the probabilities of each span. */
function findEvents(network, spans, rows, threshold, minWindows) {
  const events = [];
  for (const task of network.tasks)
    task.classes.forEach((label, index) => {
      if (network.background.includes(label)) return;
      let run = null, last = null;
      const finish = () => {
        if (run && run.count >= minWindows) {
          if (last && run.start <= last.end) Object.assign(last, { end: run.end, score: Math.max(last.score, run.score) });
          else events.push((last = { ...run, task: task.name, label }));
        }
        run = null;
      };
      spans.forEach(([start, end], i) => {
        const score = Math.round(rows[i][task.first + index] * 1e6) / 1e6;
        if (score < threshold) return finish();
        run = run ? { ...run, end, score: Math.max(run.score, score), count: run.count + 1 } : { start, end, score, count: 1 };
      });
      finish();
    });
  return events.sort((a, b) => a.start - b.start);
}

if (typeof module !== "undefined") module.exports = { makeClassifier, tile, cutWindow, findEvents };
