"""The classifier: frontend, encoder, global max pooling and one linear head per task."""

import copy

from torch import Tensor, nn

from audiostride.errors import InputError
from audiostride.layers import LogMel
from audiostride.models.config import ClassifierConfig
from audiostride.models.encoder import Encoder


class AudioClassifier(nn.Module):
    """Waveform in, logits of every task out.

    Args:
        config: See `ClassifierConfig`.

    Shape:
        waveform: ``(B, samples)`` at ``config.sample_rate``, in [-1, 1]. Result: a dict with ``(B, classes)`` per task.

    Raises:
        InputError: A waveform that is not of shape ``(B, samples)``.

    >>> import torch
    >>> model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, width=0.125))
    >>> {task: logits.shape for task, logits in model(torch.zeros(3, 16000)).items()}
    {'word': torch.Size([3, 2])}
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = LogMel(
            sample_rate=config.sample_rate,
            n_mels=config.n_mels,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            fmin_hz=config.fmin_hz,
            fmax_hz=config.fmax_hz,
        )
        # Log-mel values reach from -14 to 6: without a norm in front, the first convolution's zero padding, which is
        # loud on that scale, and its offset would have to be unlearned first.
        self.input_norm = nn.BatchNorm2d(1)
        self.encoder = Encoder(
            pooling=config.pooling,
            strides=config.strides,
            channels=config.channels,
            width=config.width,
            size=config.size,
            ramp_bins=config.ramp_bins,
            shared_strides=config.shared_strides,
            max_stride=config.max_stride,
            size_multiple=config.size_multiple,
            pool_after=config.pool_after,
        )
        self.encoder.expect_sizes(config.window_frames, config.n_mels)
        self.heads = nn.ModuleList(nn.Linear(self.encoder.out_channels, len(names)) for names in config.tasks.values())

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        if waveform.ndim != 2:
            raise InputError(
                f"AudioClassifier: waveform must have shape (B, samples), got {tuple(waveform.shape)}; "
                "add a batch axis with .unsqueeze(0)"
            )
        return self.classify_spectrogram(self.frontend(waveform))

    def classify_spectrogram(self, spectrogram: Tensor) -> dict[str, Tensor]:
        """Logits of every task from a log-mel spectrogram of shape ``(B, T, M)``."""
        maps = self.encoder(self.input_norm(spectrogram.unsqueeze(1)))
        features = maps.amax(dim=(-2, -1))  # (B, C)
        return {task: head(features) for task, head in zip(self.config.tasks, self.heads, strict=True)}

    def freeze(self) -> "AudioClassifier":
        """A copy for evaluation whose strides are fixed: no parameters in its poolings, which suit windows only.

        It takes excerpts of ``config.window_samples`` samples, runs faster, and can be exported.
        """
        frozen = copy.deepcopy(self).eval()
        frozen.encoder.freeze_(self.config.window_frames, self.config.n_mels)
        return frozen

    def project_strides_(self) -> None:
        """Limit the learned strides to what the windows of this model allow; call it after each optimizer step."""
        self.encoder.project_strides_(self.config.window_frames, self.config.n_mels)
