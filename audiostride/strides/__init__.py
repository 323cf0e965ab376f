"""Learnable and fixed strides for any tensor: masks, matrices, pooling, layers; knows no audio."""
