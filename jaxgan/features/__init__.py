"""Feature networks, in whose features samples are compared."""

from jaxgan.features.classifier import (
    TrainedClassifier,
    default_epochs,
    load_classifier,
    save_classifier,
    train_classifier,
)
from jaxgan.features.inception import InceptionV3, inception, load_inception
from jaxgan.features.network import FeatureNetwork, Features, random_projection, raw
from jaxgan.features.weights import WeightsError, load_pytorch, load_weights, save_weights

__all__ = ["FeatureNetwork", "Features", "InceptionV3", "TrainedClassifier", "WeightsError",
           "default_epochs", "inception", "load_classifier", "load_inception", "load_pytorch",
           "load_weights", "random_projection", "raw", "save_classifier", "save_weights",
           "train_classifier"]
