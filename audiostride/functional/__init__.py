"""Pure tensor functions: log-mel spectrograms, masks over frequency, pooling in the Fourier domain."""

from audiostride.functional.frontend import log_mel_spectrogram, mel_filterbank
from audiostride.functional.masks import limit_stride, minimum_stride, output_length, passband_mask
from audiostride.functional.matrices import fourier_pooling_matrix, pooling_matrix, spectral_output_length
from audiostride.functional.pooling import diffstride_pool, spectral_pool

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
