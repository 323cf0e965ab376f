"""Recordings as samples, and samples as log-mel spectrograms; knows no labels."""
