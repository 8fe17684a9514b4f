"""Three images of a one-channel set as the channels of one: Stacked MNIST, with 1000 known modes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.data.dataset import Dataset
from jaxgan.data.order import position_keys, shuffled_index
from jaxgan.data.sources import Source, resident, scale
from jaxgan.keys import stream
from jaxgan.types import Array, Batch, Key, PyTree


def stacked(dataset: Dataset, *, value_range: tuple[float, float] = (0.0, 1.0),
            labels: bool = False, count: int | None = None) -> Source:
    """Returns a source of images whose three channels are images of a set, drawn at random.

    It is endless, or of so many stacks that stay the same, in a fresh order every epoch. Each channel is
    drawn uniformly and by itself, so an image may meet itself. Of a set of C classes,
    channels of the classes a, b and c are the mode C^2 a + C b + c of C^3: of MNIST's 10 classes, the
    number abc.

    Args:
        dataset: images of one channel; they stay on the device as uint8.
        value_range: (-1, 1) for x / 127.5 - 1, or (0, 1) for x / 255.
        labels: whether the batch's condition is the mode, int32 [batch], rather than None.
        count: how many stacks there are, which the source's key decides; None: every draw is a new one.

    Raises:
        ValueError: the images have more than one channel, the range is another one, or there are no
            stacks.

    Source: Metz et al. 2017, arXiv 1611.02163, and Srivastava et al. 2017, arXiv 1705.07761. Lin et al.
    2018 (arXiv 1712.04086) stack 128,000 beforehand.
    """
    size, *shape, channels = dataset.images.shape
    if channels != 1:
        raise ValueError(f"{dataset.name} has images of {channels} channels: only images of one can be "
                         "stacked")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, or None; got {count}")
    single = resident(dataset, value_range=value_range, labels=labels)
    digits = single.num_classes ** np.arange(3, dtype=np.int32)[::-1]

    def draw(arrays: PyTree, key: Key, epochs: Array, offsets: Array) -> Batch:
        if count is None:
            keys = position_keys(stream(key, "stack"), epochs, offsets)
        else:
            numbers = shuffled_index(stream(key, "order"), epochs, offsets, count)
            keys = jax.vmap(partial(jax.random.fold_in, stream(key, "stack")))(numbers)
        index = jax.vmap(lambda key: jax.random.randint(key, (3,), 0, size))(keys)  # [batch, 3]
        samples = jnp.moveaxis(arrays["images"][index, ..., 0], 1, -1)
        return Batch(scale(samples, value_range), arrays["labels"][index] @ digits if labels else None)

    return Source(single.arrays, draw, count, (*shape, 3), single.value_range, single.num_classes ** 3,
                  digest=single.digest)
