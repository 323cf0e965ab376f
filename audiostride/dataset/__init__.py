"""Recordings and labels: manifests, splits, readers, the store, the order of clips."""
