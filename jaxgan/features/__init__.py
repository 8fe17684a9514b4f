"""Feature networks, in whose features samples are compared."""

from jaxgan.features.classifier import (
    TrainedClassifier,
    default_epochs,
    load_classifier,
    save_classifier,
    train_classifier,
)
from jaxgan.features.detector import (
    TrainedDetector,
    detect,
    load_detector,
    save_detector,
    train_detector,
)
from jaxgan.features.inception import InceptionV3, inception, load_inception
from jaxgan.features.network import FeatureNetwork, Features, random_projection, raw
from jaxgan.features.reader import Reader, train_reader
from jaxgan.features.weights import (
    WeightsError,
    load_about,
    load_pytorch,
    load_weights,
    save_weights,
)

__all__ = ["FeatureNetwork", "Features", "InceptionV3", "Reader", "TrainedClassifier", "TrainedDetector",
           "WeightsError", "default_epochs", "detect", "inception", "load_classifier", "load_detector",
           "load_about", "load_inception", "load_pytorch", "load_weights", "random_projection", "raw",
           "save_classifier", "save_detector", "save_weights", "train_classifier", "train_detector",
           "train_reader"]
