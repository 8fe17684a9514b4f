"""What a number was measured by: without it the number means nothing."""

import dataclasses
import difflib
from typing import Any

from jaxgan.digests import json_digest


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything but the samples that decides an evaluation's numbers; stored with each of them.

    Attributes:
        name: what the settings are called; of no consequence.
        features: the feature network: "inception", "classifier", "raw" or "random_projection".
        features_digest: the network's digest, filled in when it is loaded.
        resize: what it does to the size of images, filled in too.
        dataset: the set that samples are compared with.
        dataset_digest: its digest, filled in when it is loaded.
        split: the part of it that samples are compared with, "train" or "test".
        num_real: how many reals, the first in the set's order; 0 for all, filled in.
        num_fake: how many samples; 0 for as many as the other split has, filled in: the distance
            of that split, the real-vs-real floor, is then one of equally many.
        averaged: whether samples are drawn from the averaged generator, if there is one.
        ddof: covariances are divided by the number of samples minus this.
        splits: parts that the Inception score is averaged over.
        shuffle: None, or the seed of the order in which samples are dealt to these parts.
        subsets: subsets that the kernel distance is averaged over.
        subset_size: samples in each; fewer if there are fewer.
        manifold_neighbours: the k of precision and recall.
        density_neighbours: the k of density and coverage.
        manifold_samples: how many reals and samples these four take at most, the first ones.
        sliced_images: how many images of either kind the sliced Wasserstein distance takes at most.
        projections: how many random directions it takes.
        seed: of the latents and of the random choices of metrics.
    """

    name: str = "default"
    features: str = "classifier"
    features_digest: str = ""
    resize: str = ""
    dataset: str = ""
    dataset_digest: str = ""
    split: str = "train"
    num_real: int = 0
    num_fake: int = 0
    averaged: bool = True
    ddof: int = 1
    splits: int = 10
    shuffle: int | None = None
    subsets: int = 100
    subset_size: int = 1000
    manifold_neighbours: int = 3
    density_neighbours: int = 5
    manifold_samples: int = 10_000
    sliced_images: int = 2048
    projections: int = 128
    seed: int = 0

    def __post_init__(self):
        for name in ("splits", "subsets", "manifold_neighbours", "density_neighbours",
                     "manifold_samples", "sliced_images", "projections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("num_real", "num_fake", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        if self.subset_size < 2:
            raise ValueError(f"subset_size must be at least 2; got {self.subset_size}")
        if self.split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test'; got {self.split!r}")
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof must be 0 or 1; got {self.ddof}")

    @property
    def held_out(self) -> str:
        """The split that samples are not compared with."""
        return "test" if self.split == "train" else "train"

    def as_json(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 of all fields that matter: numbers of two protocols compare if these are equal."""
        return json_digest(_mattering(self))


# Published protocols. What they leave open (here: the metrics that they don't have) is the default.
PRESETS = {preset.name: preset for preset in (
    Protocol(),
    # Lee and Town 2020 (arXiv 2005.02494): 50k samples against 50k training images.
    Protocol("mimicry", "inception", num_real=50_000, num_fake=50_000),
    # Heusel et al. 2017 (arXiv 1706.08500): 50k samples against the whole training set.
    Protocol("ttur", "inception", num_fake=50_000),
    # Kurach et al. 2019 (arXiv 1807.04720): 10k samples against 10k test images.
    Protocol("compare_gan", "inception", split="test", num_real=10_000, num_fake=10_000),
    # Huang et al. 2024 (arXiv 2501.05441), by the code of the StyleGANs: covariances with ddof 0.
    Protocol("r3gan", "inception", num_fake=50_000, ddof=0, manifold_samples=50_000),
    # torch-fidelity's defaults: samples shuffled by seed 2020 for the Inception score.
    Protocol("torch_fidelity", "inception", num_fake=50_000, shuffle=2020, manifold_samples=50_000),
)}


def preset(name: str) -> Protocol:
    """Returns a preset by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown protocol {name!r}: {nearest(name, PRESETS)}")
    return PRESETS[name]


def protocol_from_json(value: Any) -> Protocol:
    """Returns the protocol that `as_json` has described.

    Raises:
        ValueError: it isn't one.
    """
    fields = {field.name: field for field in dataclasses.fields(Protocol)}
    if not isinstance(value, dict) or value.keys() != fields.keys() or any(
            type(value[name]) is not type(field.default) and name != "shuffle"
            for name, field in fields.items()):
        raise ValueError(f"not a protocol: {str(value)[:100]}")
    return Protocol(**value)


def differences(first: Protocol, second: Protocol) -> list[str]:
    """Says in which fields two protocols differ, if in any that matters."""
    ours, theirs = _mattering(first), _mattering(second)
    return [f"{name} is {_short(ours[name])} and {_short(theirs[name])}" for name in ours
            if ours[name] != theirs.get(name, ours[name])]


def _mattering(protocol: Protocol) -> dict[str, Any]:
    """The fields but the name, and that of a data set whose digest says which it is."""
    fields = protocol.as_json()
    del fields["name"]
    if protocol.dataset_digest:
        del fields["dataset"]
    return fields


def nearest(name: str, known) -> str:
    """The end of a sentence about an unknown name: the likeliest known one, or all."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def _short(value: Any) -> str:
    return repr(value[:12] if isinstance(value, str) else value)
