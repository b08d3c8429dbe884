"""Metrics: pure functions on arrays of accuracies, losses and curves; nothing here trains."""
