"""The readiness comparison: train, request, score, report."""
