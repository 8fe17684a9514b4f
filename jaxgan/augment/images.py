"""Augmentations of images that the generator doesn't learn: DiffAugment and ADA.

Both change the reals and the fakes alike, each image by draws of its own, and are differentiable any
number of times. Images are taken to be in `value_range`, and what is brought in from outside has its
middle, as 0 in [-1, 1].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import keys as randomness
from jaxgan.augment.basic import Augmentation
from jaxgan.augment.warping import reflecting, warp
from jaxgan.terms import Term, Value, View
from jaxgan.types import Array, Key, PyTree

# What ADA is made of, in its order, in the groups of the article.
_BLIT = ("xflip", "rotate90", "xint")
_GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
_COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
ADA = (*_BLIT, *_GEOMETRY, *_COLOUR, "imgfilter", "noise", "cutout")
DIFFAUGMENT = ("colour", "translation", "cutout")

Probability = float | optax.Schedule | Term
_Draws = dict[str, Array]


def adaptive(target: float = 0.6, images: float = 500_000, every: int = 4, relative: bool = False
             ) -> Term:
    """The probability of an augmentation that follows how far the critic overfits, from 0 on.

    In every so many critic updates it rises by batch * every / images if E[sign D(x)] over their reals
    is above the target, and else falls by as much, within [0, 1]. Karras et al. 2020 (arXiv 2006.06676),
    section 3.1, r_t.

    By Wasserstein, relativistic and least-squares losses the border between real and fake isn't 0, so
    that signs follow nothing: with `relative` it is E[sign(D(x) - D(fake))], over pairs.

    Args:
        target: of E[sign D(x)], or of E[sign(D(x) - D(fake))].
        images: in how many the probability goes from 0 to 1.
        every: critic updates from one change to the next.
        relative: whether reals' scores are compared with fakes' instead of with 0.

    Raises:
        ValueError: a number is out of its range.
    """
    if not (-1 <= target <= 1 and images > 0 and every >= 1):
        raise ValueError("adaptive takes a target in [-1, 1], a positive number of images, and every "
                         f"from 1 on; got {target}, {images} and {every}")

    def value(view: View, state: PyTree) -> Value:
        # How many more are above 0 than below: a whole number, so that devices agree to the last bit.
        scores = view.real.scores - view.fake.scores if relative else view.real.scores
        signs = jnp.sign(scores.reshape(len(scores), -1).mean(1)).mean()  # a sample's patches as one
        return Value(None, {"ada_sign": signs, "batch": jnp.float32(view.batch_size),
                            "ada_probability": state["probability"]})

    def update(state: PyTree, observed: PyTree) -> PyTree:
        signs = state["signs"] + jnp.round(observed["ada_sign"] * observed["batch"])
        seen = state["seen"] + observed["batch"]
        is_due = seen >= every * observed["batch"]
        moved = state["probability"] + seen / images * jnp.sign(signs - target * seen)
        return {"probability": jnp.where(is_due, jnp.clip(moved, 0.0, 1.0), state["probability"]),
                "signs": jnp.where(is_due, 0.0, signs), "seen": jnp.where(is_due, 0.0, seen)}

    return Term("ada", value, weight=0.0, update=update,
                init=lambda: {name: jnp.zeros(()) for name in ("probability", "signs", "seen")},
                report=lambda observed: {name: observed[name] for name in (
                    "ada_sign", "ada_probability")})


def diffaugment(operations: Mapping[str, float] | Sequence[str] = DIFFAUGMENT, *,
                probability: Probability = 1.0, value_range: tuple[float, float] = (-1.0, 1.0)
                ) -> Augmentation:
    """Brightness, saturation and contrast; shifts by an eighth; a hole of half the size.

    Zhao et al. 2020 (arXiv 2006.10738), the policy "color, translation, cutout". Colours are changed in
    images of any number of channels, saturation only where there are several.

    Args:
        operations: which, and by what each one's probability is multiplied; 1 if they are only named.
        probability: of each operation in each image; or a schedule, iteration -> probability, or
            `adaptive()`.
        value_range: that of the images.

    Raises:
        ValueError: an unknown operation, or a number out of its range.
    """
    factors = _factors(operations, DIFFAUGMENT)

    def draw(name: str, key: Key) -> Array:
        return jax.random.uniform(key, (3,) if name == "colour" else (2,))

    def show(draws: _Draws, images: Array) -> Array:
        size = jnp.array([images.shape[1:3]])
        if "colour" in factors:
            light, saturation, contrast = jnp.split(draws["colour"][:, None, None], 3, -1)
            changed = images + (light - 0.5)
            grey = changed.mean(-1, keepdims=True)
            changed = grey + (changed - grey) * 2 * saturation
            mean = changed.mean((1, 2, 3), keepdims=True)
            images = _where(draws["colour_on"], mean + (changed - mean) * (contrast + 0.5), images)
        if "translation" in factors:
            most = jnp.round(size / 8).astype(jnp.int32)
            by = jnp.floor(draws["translation"] * (2 * most + 1)).astype(jnp.int32) - most
            images = _where(draws["translation_on"], jax.vmap(_moved)(images, by), images)
        if "cutout" in factors:
            hole = jnp.floor(size * 0.5 + 0.5)
            first = jnp.floor(draws["cutout"] * (size + 1 - hole % 2)) - hole // 2
            images = _without(images, draws["cutout_on"], first, first + hole)
        return images

    return _augmentation(draw, show, factors, probability, value_range)


def ada(operations: Mapping[str, float] | Sequence[str] = (*_BLIT, *_GEOMETRY, *_COLOUR), *,
        probability: Probability | None = None, value_range: tuple[float, float] = (-1.0, 1.0)
        ) -> Augmentation:
    """The operations of adaptive discriminator augmentation, by default those of pixels and colours.

    Karras et al. 2020 (arXiv 2006.06676), appendix B. Colours are changed only in images of three
    channels, and images that aren't square are turned by halves only. Beyond its edges an image goes on
    by reflection however far it is moved (there, once).

    Args:
        operations: which of `ADA`, and by what each one's probability is multiplied; 1 if they are only
            named.
        probability: of each operation in each image; or a schedule, iteration -> probability; by default
            `adaptive()`.
        value_range: that of the images.

    Raises:
        ValueError: an unknown operation, or a number out of its range.
    """
    factors = _factors(operations, ADA)

    def draw(name: str, key: Key) -> Array:
        uniform = jax.random.uniform(key, (2,))
        normal = jax.random.normal(jax.random.fold_in(key, 1), (4,))
        return {"xflip": jnp.floor(2 * uniform[0]), "rotate90": jnp.floor(4 * uniform[0]),
                "xint": (2 * uniform - 1) / 8, "scale": 2 ** (0.2 * normal[0]),
                "rotate": math.pi * (2 * uniform - 1), "aniso": 2 ** (0.2 * normal[0]),
                "xfrac": normal[:2] / 8, "brightness": 0.2 * normal[0],
                "contrast": 2 ** (0.5 * normal[0]), "lumaflip": jnp.floor(2 * uniform[0]),
                "hue": math.pi * (2 * uniform[0] - 1), "saturation": 2 ** normal[0],
                "imgfilter": 2 ** normal, "noise": 0.1 * jnp.abs(normal[0]), "cutout": uniform}[name]

    def show(draws: _Draws, images: Array) -> Array:
        if "xflip" in factors:
            images = _where(draws["xflip_on"] & (draws["xflip"] == 1), images[:, :, ::-1], images)
        if "rotate90" in factors:
            images = _turned(images, jnp.where(draws["rotate90_on"], draws["rotate90"], 0))
        if geometry := [name for name in ("xint", *_GEOMETRY) if name in factors]:
            moved = warp(images, _kept(_inverse(draws, geometry, images.shape[1:3])))
            images = _where(_any(draws, geometry), moved, images)
        if images.shape[-1] == 3 and (colour := [name for name in _COLOUR if name in factors]):
            matrix, offset = jnp.split(_kept(_colours(draws, colour)[:, :3]), [3], -1)
            changed = jnp.einsum("bij,bhwj->bhwi", matrix, images) + offset[:, None, None, :, 0]
            images = _where(_any(draws, colour), changed, images)
        if "imgfilter" in factors:
            images = _where(_any(draws, ["imgfilter"]), _filtered(draws, images), images)
        if "noise" in factors:
            noise = randomness.normal(draws["keys"], images.shape[1:])
            images = _where(draws["noise_on"], images + _wide(draws["noise"]) * noise, images)
        if "cutout" in factors:
            size = jnp.array([images.shape[1:3]])
            centre = draws["cutout"] * size - 0.5
            images = _without(images, draws["cutout_on"], jnp.floor(centre - size / 4) + 1,
                              jnp.ceil(centre + size / 4))
        return images

    return _augmentation(draw, show, factors, adaptive() if probability is None else probability,
                         value_range)


# What both are made of.


def _factors(operations: Mapping[str, float] | Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """The multipliers by name, in the order in which operations are done, without those of 0."""
    given = dict(operations) if isinstance(operations, Mapping) else dict.fromkeys(operations, 1.0)
    for name, factor in given.items():
        if name not in known:
            raise ValueError(f"there is no operation {name!r}: choose from {', '.join(known)}")
        if not 0 <= factor < math.inf:
            raise ValueError(f"the multiplier of {name} must be from 0 on; got {factor}")
    return {name: given[name] for name in known if given.get(name)}


def _augmentation(draw_one: Callable[[str, Key], Array], show_all: Callable[[_Draws, Array], Array],
                  factors: Mapping[str, float], probability: Probability,
                  value_range: tuple[float, float]) -> Augmentation:
    """Draws each operation for each image with its probability, and shows images in [-1, 1]."""
    term, schedule = None, probability
    if isinstance(probability, Term):
        term = probability
    elif not callable(probability):
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1]; got {probability}")
        schedule = optax.constant_schedule(probability)
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high); got {value_range}")
    middle, half = (low + high) / 2, (high - low) / 2

    def draw(keys: Key, step: Array, state: PyTree) -> _Draws:
        chance = state["probability"] if term else cast("optax.Schedule", schedule)(step)
        drawn: _Draws = {"keys": jax.vmap(jax.random.fold_in, (0, None))(keys, 0)}
        for name, factor in factors.items():
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, _index(name))
            drawn[name] = jax.vmap(lambda key, name=name: draw_one(name, key))(own)
            one = jnp.minimum(chance * factor, 1.0)
            # Of two rotations, before and after the stretching, at least one with the probability.
            one, shape = (1 - jnp.sqrt(1 - one), (2,)) if name == "rotate" else (one, ())
            shape = (4,) if name == "imgfilter" else shape
            drawn[f"{name}_on"] = jax.vmap(lambda key, shape=shape: jax.random.uniform(
                jax.random.fold_in(key, 2), shape))(own) < one
        return drawn | _kept({name: each for name, each in drawn.items() if name != "keys"})

    def show(draws: _Draws, images: PyTree) -> Array:
        if getattr(images, "ndim", 0) != 4:
            raise ValueError("diffaugment and ada are for images, [batch, height, width, channels]; got "
                             f"{jax.tree.map(jnp.shape, images)}: leave the augmentation out")
        if (middle, half) == (0.0, 1.0):
            return show_all(draws, images)
        changed = show_all(draws, (images - middle) / half) * half + middle
        on = _any(draws, list(factors))
        return _where(on, changed, images)  # the others to the last bit

    return Augmentation(draw, show, term)


def _kept(tree: PyTree) -> PyTree:
    """The same arrays of numbers or truths, [batch, ...], written to memory.

    XLA puts what is cheap into the loops that use it, here for each pixel of each patch: an update of a
    critic with R1 took a processor eight times as long. It doesn't put a scatter there.
    """
    leaves, structure = jax.tree.flatten(tree)
    batch, dtype = len(leaves[0]), jnp.result_type(jnp.float32, *leaves)
    flat = jnp.concatenate([leaf.reshape(batch, -1).astype(dtype) for leaf in leaves], axis=1)
    flat = jnp.zeros_like(flat).at[jnp.arange(batch)].set(flat, unique_indices=True)
    ends = np.cumsum([leaf.size // batch for leaf in leaves])[:-1]
    return structure.unflatten([part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(
        jnp.split(flat, ends, axis=1), leaves, strict=True)])


def _index(name: str) -> int:
    """A number of its own for each operation, so that leaving one out changes no other's draws."""
    return 16 + (*ADA, *DIFFAUGMENT).index(name)


def _any(draws: _Draws, names: Sequence[str]) -> Array:
    """Whether any of these operations is on, [batch]."""
    batch = len(draws["keys"])
    return jnp.stack([draws[f"{name}_on"].reshape(batch, -1).any(1) for name in names]).any(0)


def _wide(x: Array) -> Array:
    return x[:, None, None, None]


def _where(on: Array, changed: Array, images: Array) -> Array:
    return jnp.where(_wide(on), changed.astype(images.dtype), images)


def _turned(images: Array, quarters: Array) -> Array:
    """Images turned by so many quarters, [batch]; of images that aren't square only by halves."""
    if images.shape[1] == images.shape[2]:
        images = _where(quarters % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
    return _where(quarters >= 2, images[:, ::-1, ::-1], images)


def _moved(image: Array, by: Array) -> Array:
    """An image, moved by whole pixels (down, right), with zeros where nothing comes in."""
    height, width, channels = image.shape
    padded = jnp.pad(image, ((height, height), (width, width), (0, 0)))
    return jax.lax.dynamic_slice(padded, (height - by[0], width - by[1], 0), (height, width, channels))


def _without(images: Array, on: Array, first: Array, end: Array) -> Array:
    """Images without what is from `first` up to `end`, [batch, 2], where that is on."""
    inside = on[:, None, None]
    for axis in (1, 2):
        at = jnp.arange(images.shape[axis])[None]
        covered = (at >= first[:, axis - 1, None]) & (at < end[:, axis - 1, None])
        inside = inside & jnp.expand_dims(covered, 3 - axis)
    return jnp.where(inside[..., None], jnp.zeros((), images.dtype), images)


# ADA's maps, each [batch, ...]: matrices of homogeneous coordinates, and what an image is filtered with.


def _inverse(draws: _Draws, names: Sequence[str], size: Sequence[int]) -> Array:
    """Where the pixels of the result come from, [batch, 2, 3], counted from the centre."""
    height, width = size
    extent = jnp.array([width, height], jnp.float32)
    inverse = jnp.eye(3)[None]

    def value(name: str, nothing: float, index: int | None = None) -> Array:
        on, drawn = draws[f"{name}_on"], draws[name]
        if index is not None:
            on, drawn = (on if on.ndim == 1 else on[:, index]), drawn[:, index]
        return jnp.where(on, drawn, nothing)

    def turned(angle: Array) -> Array:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return _matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    if "xint" in names:
        x, y = (jnp.round(value("xint", 0.0, i) * extent[i]) for i in (0, 1))
        inverse = inverse @ _matrix([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    if "scale" in names:
        scale = value("scale", 1.0)
        inverse = inverse @ _matrix([[1 / scale, 0, 0], [0, 1 / scale, 0], [0, 0, 1]])
    if "rotate" in names:
        inverse = inverse @ turned(value("rotate", 0.0, 0))
    if "aniso" in names:
        scale = value("aniso", 1.0)
        inverse = inverse @ _matrix([[1 / scale, 0, 0], [0, scale, 0], [0, 0, 1]])
    if "rotate" in names:
        inverse = inverse @ turned(value("rotate", 0.0, 1))
    if "xfrac" in names:
        x, y = (value("xfrac", 0.0, i) * extent[i] for i in (0, 1))
        inverse = inverse @ _matrix([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    return inverse[:, :2]


def _colours(draws: _Draws, names: Sequence[str]) -> Array:
    """What maps (red, green, blue, 1) to new colours, [batch, 4, 4]."""
    grey = np.array([1, 1, 1, 0]) / math.sqrt(3)
    along = jnp.asarray(np.outer(grey, grey), jnp.float32)[None]
    eye, matrix = jnp.eye(4)[None], jnp.eye(4)[None]

    def value(name: str, nothing: float) -> Array:
        return jnp.where(draws[f"{name}_on"], draws[name], nothing)[:, None, None]

    if "brightness" in names:
        offset = jnp.zeros((4, 4)).at[:3, 3].set(1.0)[None]
        matrix = (eye + value("brightness", 0.0) * offset) @ matrix
    if "contrast" in names:
        channels = jnp.diag(jnp.array([1.0, 1.0, 1.0, 0.0]))[None]
        matrix = (eye + (value("contrast", 1.0) - 1) * channels) @ matrix
    if "lumaflip" in names:
        matrix = (eye - 2 * value("lumaflip", 0) * along) @ matrix
    if "hue" in names:  # Rodrigues' rotation about grey
        angle, (a, b, c, _) = value("hue", 0.0), grey
        cross = jnp.array([[0, -c, b, 0], [c, 0, -a, 0], [-b, a, 0, 0], [0, 0, 0, 0]])[None]
        matrix = (eye + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * (cross @ cross)) @ matrix
    if "saturation" in names:
        around = jnp.diag(jnp.array([1.0, 1.0, 1.0, 0.0]))[None] - along
        matrix = (eye + (value("saturation", 1.0) - 1) * around) @ matrix
    return matrix


def _matrix(rows: list[list]) -> Array:
    """Rows of numbers and of arrays [batch] as [batch, rows, columns]."""
    batch = max(jnp.size(x) for row in rows for x in row)
    return jnp.stack([jnp.stack([jnp.broadcast_to(jnp.asarray(x, jnp.float32), (batch,))
                                 for x in row], -1) for row in rows], -2)


def _bands() -> np.ndarray:
    """Four filters, [4, taps], of an octave each but the lowest, whose sum changes nothing.

    Each level splits its band in halves by the autocorrelation of the wavelet sym2's filters.
    """
    root = math.sqrt(3)
    low = np.array([1 - root, 3 - root, 3 + root, 1 + root]) / (4 * math.sqrt(2))
    high = low * (-1.0) ** np.arange(4)
    low, high = np.convolve(low, low[::-1]) / 2, np.convolve(high, high[::-1]) / 2
    bands = [np.ones(1)]
    for _ in range(3):
        lower = []
        for band in bands:
            spread = np.zeros(2 * len(band) - 1)
            spread[::2] = band
            lower.append(np.convolve(spread, low))
        beside = (len(lower[0]) - len(high)) // 2
        bands = [*lower, np.pad(high, beside)]
    return np.stack(bands)


_BANDS = _bands()
_POWER = np.array([10.0, 1.0, 1.0, 1.0]) / 13  # of natural images in each band


def _filtered(draws: _Draws, images: Array) -> Array:
    """Images with their bands amplified, so that the power that is expected of them stays."""
    gains = jnp.ones((len(images), 4))
    for band in range(4):
        amplified = jnp.ones_like(gains).at[:, band].set(
            jnp.where(draws["imgfilter_on"][:, band], draws["imgfilter"][:, band], 1.0))
        gains *= amplified / jnp.sqrt((_POWER[None] * amplified**2).sum(1, keepdims=True))
    for axis in (1, 2):
        banks = np.stack([reflecting(band, images.shape[axis]) for band in _BANDS])
        matrix = jnp.einsum("bk,kij->bij", gains, jnp.asarray(banks, jnp.float32))
        images = jnp.einsum("bij,bjwc->biwc" if axis == 1 else "bij,bhjc->bhic", matrix, images)
    return images
