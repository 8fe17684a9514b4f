"""Distances and scores of samples."""

from jaxgan.metrics.modes import mode_coverage

__all__ = ["mode_coverage"]
