"""Augmentation: what is drawn for a batch, and how it is applied."""
