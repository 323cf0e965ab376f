"""What several recipes share: options and stages, miniature archives, the paper's figures, tables."""
