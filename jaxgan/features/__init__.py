"""Feature networks, in whose features samples are compared."""

from jaxgan.features.classifier import (
    TrainedClassifier,
    default_epochs,
    load_classifier,
    save_classifier,
    train_classifier,
)
from jaxgan.features.network import FeatureNetwork, Features, random_projection, raw

__all__ = ["FeatureNetwork", "Features", "TrainedClassifier", "default_epochs", "load_classifier",
           "random_projection", "raw", "save_classifier", "train_classifier"]
