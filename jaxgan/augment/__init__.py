"""What the critic is shown in place of samples: noise on them, packs of them, images that are changed.

An augmentation is drawn once in an update for the reals and once for the fakes, and shown as often as a
term needs it (`View.show`), by the same function in the critic's and in the generator's update, so that
the generator learns through it.
"""

from jaxgan.augment.basic import Augmentation, alike, chain, instance_noise, noise_levels, packed
from jaxgan.augment.images import ADA, DIFFAUGMENT, ada, adaptive, diffaugment

__all__ = ["ADA", "DIFFAUGMENT", "Augmentation", "ada", "adaptive", "alike", "chain",
           "diffaugment", "instance_noise", "noise_levels", "packed"]
