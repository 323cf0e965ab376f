"""Pure tensor functions: log-mel spectrograms, masks over frequency, pooling in the Fourier domain."""

from audiostride.audio.log_mel import log_mel_spectrogram, mel_filterbank
from audiostride.strides.masks import limit_stride, minimum_stride, output_length, passband_mask
from audiostride.strides.matrices import fourier_pooling_matrix, pooling_matrix, spectral_output_length
from audiostride.strides.pooling import diffstride_pool, spectral_pool

__all__ = [
    "diffstride_pool",
    "fourier_pooling_matrix",
    "limit_stride",
    "log_mel_spectrogram",
    "mel_filterbank",
    "minimum_stride",
    "output_length",
    "passband_mask",
    "pooling_matrix",
    "spectral_output_length",
    "spectral_pool",
]
