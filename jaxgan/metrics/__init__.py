"""Distances and scores of samples."""

from jaxgan.metrics.curves import curve_distance
from jaxgan.metrics.detection import (
    average_precision,
    detection_scores,
    mean_average_precision,
    mean_iou,
)
from jaxgan.metrics.frechet import Moments, frechet_distance, merge, moments
from jaxgan.metrics.inpainting import HoleErrors, hole_errors, image_errors
from jaxgan.metrics.kernels import KernelDistance, kernel_distance, maximum_mean_discrepancy
from jaxgan.metrics.modes import class_coverage, mode_coverage
from jaxgan.metrics.neighbours import (
    DensityCoverage,
    Memorisation,
    PrecisionRecall,
    density_coverage,
    memorisation,
    precision_recall,
)
from jaxgan.metrics.scores import InceptionScore, inception_score
from jaxgan.metrics.sliced import sliced_wasserstein, sliced_wasserstein_images
from jaxgan.metrics.text import ngram_divergence

__all__ = ["DensityCoverage", "HoleErrors", "InceptionScore", "KernelDistance", "Memorisation",
           "Moments", "PrecisionRecall", "average_precision", "class_coverage", "curve_distance",
           "density_coverage", "detection_scores", "frechet_distance", "hole_errors", "image_errors",
           "inception_score", "kernel_distance", "maximum_mean_discrepancy", "mean_average_precision",
           "mean_iou", "memorisation", "merge", "mode_coverage", "moments", "ngram_divergence",
           "precision_recall", "sliced_wasserstein", "sliced_wasserstein_images"]
