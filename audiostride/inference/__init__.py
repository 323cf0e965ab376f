"""From recordings to windows, logits and rows: evaluation and prediction, metrics, baselines, output files."""
