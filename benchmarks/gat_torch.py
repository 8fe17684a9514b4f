"""Transformer GANs in PyTorch, NCHW: GAT (arXiv 2509.24935) and adversarial flow (arXiv 2511.22475).

Written from the papers. `Generator` and `Critic` are GAT's: RMSNorm (arXiv 1910.07467), SwiGLU
(2002.05202), normalised queries and keys (2302.05442) and rotary embeddings (2104.09864) along both
axes. `FlowGenerator` and `FlowCritic` are those of adversarial flow: transformers of DiT (2212.09748).

Conventions, the same for all four:

- Tokens go row by row: token i is the patch in row i // side and column i % side, where side is
  size / patch. A critic's learned token comes before them.
- A patch is laid out as [row, column, channel], the channel fastest.
- Linear layers' weights are [outputs, inputs]. They start as Xavier's uniform ones, with biases of 0,
  unless a docstring says otherwise.
- queries, keys and values come from one layer, whose outputs are laid out as [3, heads, head size].
- Tables that don't train are no parameters, and are not in the state dictionary. They are float64
  and take on the precision of what they meet.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-6

# For each published size its depth, width and number of heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

# The parameters that train, of GAT's published generators and critics (without the alignment head), for
# 32x32 latents of 4 channels, patches of 2 and 1000 classes. A published generator also has a patch
# embedding whose output is multiplied by 0: 17 * width parameters, which `Generator` does without.
PUBLISHED_PARAMETERS = {"S": (29263040, 32556160), "B": (116558144, 97135360),
                        "L": (408486432, 314904544), "XL": (601956224, 459252544)}


def count_parameters(module: nn.Module) -> int:
    """The number of a module's parameters, all of which train here."""
    return sum(parameter.numel() for parameter in module.parameters())


def check_published_parameters() -> None:
    """Asserts that the networks of all published sizes have as many parameters as those published."""
    for name, (depth, width, heads) in SIZES.items():
        with torch.device("meta"):  # nothing is allocated
            networks = (Generator(32, 4, 2, depth, width, heads, classes=1000),
                        Critic(32, 4, 2, depth, width, heads, classes=1000))
        generator, critic = map(count_parameters, networks)
        assert (generator + 17 * width, critic) == PUBLISHED_PARAMETERS[name], name


def _side(size: int, patch: int) -> int:
    """The number of patches along a side."""
    if size % patch:
        raise ValueError(f"size has to be a multiple of patch, but they are {size} and {patch}")
    return size // patch


def _linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier's uniform weights (Glorot and Bengio 2010) and biases of 0 at first."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight, gain)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _small_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer where DiT starts at 0: here weights and biases start as N(0, 0.1^2)."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.1)
    return layer


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Cuts images, [batch, channels, size, size], into tokens, [batch, side^2, patch^2 channels]."""
    # [batch, channels, token's row, row, token's column, column]
    x = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def to_images(tokens: Tensor, side: int, patch: int) -> Tensor:
    """The inverse of `to_patches`: from [batch, side^2, patch^2 channels] to images."""
    x = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def grid(side: int) -> tuple[Tensor, Tensor]:
    """Each token's row and column, both [side^2]."""
    tokens = torch.arange(side**2)
    return tokens // side, tokens % side


def position_embedding(side: int, width: int) -> Tensor:
    """The fixed sine-cosine embedding of positions, [side^2, width].

    As in MAE's and DiT's code, whose grid has "w" first, the first half encodes the *column* and the
    second half the row. Each half is all sines, then all cosines, of the coordinate times
    10000^(-i / (width / 4)) for i = 0, ..., width / 4 - 1.
    """
    if width % 4:
        raise ValueError(f"width has to be a multiple of 4, not {width}")
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = grid(side)
    parts = []
    for coordinate in (column, row):
        angles = torch.outer(coordinate.double(), frequencies)
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1)


def rotation_angles(side: int, head_size: int, unrotated: int = 0) -> Tensor:
    """The angles of the rotary embedding, [unrotated + side^2, 2, head size / 4].

    At [:, 0] is the row and at [:, 1] the column, times 10000^(-2i / (head size / 2)) for i = 0, ...,
    head size / 4 - 1. The first `unrotated` tokens have angles of 0.
    """
    if head_size % 4:
        raise ValueError(f"width / heads has to be a multiple of 4, not {head_size}")
    half = head_size // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    positions = torch.stack(grid(side), dim=1).double()
    return torch.cat([torch.zeros(unrotated, 2, half // 2, dtype=torch.float64),
                      positions[:, :, None] * frequencies])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates queries or keys, [batch, heads, tokens, head size], by [tokens, 2, head size / 4] angles.

    A head's first half is rotated by the row's angles, its second half by the column's. Element i of a
    half, of h elements, makes a pair with element i + h / 2: (a, b) becomes (a cos - b sin,
    a sin + b cos).
    """
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.unflatten(3, (2, 2, -1)).unbind(4)  # each [batch, heads, tokens, 2, head size / 4]
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=4).flatten(3)


def root_mean_square_norm(x: Tensor, epsilon: float = NORM_EPSILON) -> Tensor:
    """Scales vectors, [..., size], to a mean square of 1."""
    return x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()


def layer_norm(x: Tensor) -> Tensor:
    """Shifts and scales vectors, [..., size], to a mean of 0 and a variance of 1, without parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)


class RMSNorm(nn.Module):
    """A norm with a learned scale, which starts at 1. Attribute: scale, [size]."""

    def __init__(self, size: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., size] to the same shape."""
        return root_mean_square_norm(x) * self.scale


class EqualLinear(nn.Module):
    """A linear layer at an equalised learning rate (Karras et al. 2018, arXiv 1710.10196).

    Weights start as N(0, 1) / multiplier, and are used times multiplier / sqrt(inputs). Biases start at
    0, and are used times the multiplier.

    Attributes: weight, [outputs, inputs]; bias, [outputs].
    """

    def __init__(self, inputs: int, outputs: int, multiplier: float = 0.01):
        super().__init__()
        self.multiplier = multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, inputs] to [batch, outputs]."""
        scale = self.multiplier / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.multiplier)


class Attention(nn.Module):
    """Multi-head self-attention, with normalised queries and keys or without.

    Attributes: qkv, Linear(width, 3 width), laid out as [3, heads, head size]; query_norm and key_norm,
    RMSNorm(head size) that all heads share, or None; output, Linear(width, width); fused, whether
    PyTorch's own attention is used, which can't be differentiated twice.
    """

    fused = False

    def __init__(self, width: int, heads: int, normalize: bool):
        super().__init__()
        if width % heads:
            raise ValueError(f"width has to be a multiple of heads, but they are {width} and {heads}")
        self.heads = heads
        self.qkv = _linear(width, 3 * width)
        self.query_norm = RMSNorm(width // heads) if normalize else None
        self.key_norm = RMSNorm(width // heads) if normalize else None
        self.output = _linear(width, width)

    def forward(self, x: Tensor, angles: Tensor | None = None) -> Tensor:
        """Maps [batch, tokens, width] to the same shape; `angles`, if any, are for `rotate`."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3) @ v
        return self.output(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """outer(SiLU(a) b), where a is the first half of inner(x) and b the second.

    Attributes: inner, Linear(width, 2 hidden); outer, Linear(hidden, width).
    """

    def __init__(self, width: int):
        super().__init__()
        hidden = int(2 / 3 * int(4 * width))
        self.inner = _linear(width, 2 * hidden)
        self.outer = _linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, tokens, width] to the same shape."""
        a, b = self.inner(x).chunk(2, dim=2)
        return self.outer(F.silu(a) * b)


class Mapping(nn.Module):
    """From z and a label to w: both normalised, concatenated as [class, z], then two layers.

    Attributes: class_embedding, Embedding(classes, class_size), or None without classes; linear1 and
    linear2, EqualLinear, with SiLU in between.
    """

    def __init__(self, classes: int, z_size: int, width: int, class_size: int = 64):
        super().__init__()
        self.class_embedding = nn.Embedding(classes, class_size) if classes else None
        self.linear1 = EqualLinear(z_size + (class_size if classes else 0), width)
        self.linear2 = EqualLinear(width, width)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Maps z, [batch, z size], and labels, [batch], to w, [batch, width]."""
        x = root_mean_square_norm(z, 1e-8)
        if self.class_embedding is not None:
            x = torch.cat([root_mean_square_norm(self.class_embedding(labels), 1e-8), x], dim=1)
        return self.linear2(F.silu(self.linear1(x)))


class ModulatedBlock(nn.Module):
    """A block of the generator, whose norms have no parameters of their own.

    Attributes: attention, Attention; feed_forward, SwiGLU; modulation, Linear(width, 4 width), from
    SiLU(w) to [scale1, gate1, scale2, gate2], whose Xavier weights start with a gain of 0.1.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads, normalize=True)
        self.feed_forward = SwiGLU(width)
        self.modulation = _linear(width, 4 * width, gain=0.1)

    def forward(self, x: Tensor, w: Tensor, angles: Tensor) -> Tensor:
        """Maps x, [batch, tokens, width], with w, [batch, width], to the same shape."""
        scale1, gate1, scale2, gate2 = self.modulation(F.silu(w))[:, None].chunk(4, dim=2)
        x = x + gate1 * self.attention(root_mean_square_norm(x) * (1 + scale1), angles)
        return x + gate2 * self.feed_forward(root_mean_square_norm(x) * (1 + scale2))


class OutputHead(nn.Module):
    """From tokens to patches.

    Attributes: modulation, Linear(width, width), from SiLU(w) to the norm's scale, whose Xavier weights
    start with a gain of 0.1; linear, Linear(width, patch^2 channels).
    """

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.modulation = _linear(width, width, gain=0.1)
        self.linear = _linear(width, outputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps x, [batch, tokens, width], with w, [batch, width], to [batch, tokens, outputs]."""
        return self.linear(root_mean_square_norm(x) * (1 + self.modulation(F.silu(w))[:, None]))


class Generator(nn.Module):
    """GAT's generator, which makes an image in several steps, each of which adds to the one before.

    Attributes: mapping, Mapping; blocks, `depth` ModulatedBlocks; output_heads, `outputs` OutputHeads,
    the k-th of which (from 1) comes after block number depth * k / outputs.

    Args:
        size: the images' height and width.
        channels: the images' channels.
        patch: the height and width of a token's patch.
        depth: the number of blocks, a multiple of `outputs`.
        width: the dimensions of tokens and of w.
        heads: the number of attention heads.
        classes: 0 for a generator without labels.
        z_size: the dimensions of z.
        outputs: the number of images.
    """

    positions: Tensor
    angles: Tensor

    def __init__(self, size: int, channels: int, patch: int, depth: int, width: int, heads: int,
                 classes: int, z_size: int = 64, outputs: int = 4):
        super().__init__()
        if depth % outputs:
            raise ValueError(f"depth has to be a multiple of outputs, "
                             f"but they are {depth} and {outputs}")
        self.patch, self.side = patch, _side(size, patch)
        self.mapping = Mapping(classes, z_size, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads) for _ in range(depth))
        self.output_heads = nn.ModuleList(OutputHead(width, patch**2 * channels) for _ in range(outputs))
        self.register_buffer("positions", position_embedding(self.side, width), persistent=False)
        self.register_buffer("angles", rotation_angles(self.side, width // heads), persistent=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Makes images.

        Args:
            z: [batch, z size].
            labels: classes' numbers, int64, [batch]; without classes they don't matter.

        Returns:
            [batch, outputs, channels, size, size], the k-th of which is the sum of the first k heads'
            outputs. The last is the image.
        """
        w = self.mapping(z, labels)
        x = self.positions.to(w.dtype).expand(len(z), -1, -1)
        stride = len(self.blocks) // len(self.output_heads)
        patches = []
        for k, block in enumerate(self.blocks, 1):
            x = block(x, w, self.angles)
            if k % stride == 0:
                patches.append(self.output_heads[k // stride - 1](x, w))
        images = torch.stack([to_images(tokens, self.side, self.patch) for tokens in patches], dim=1)
        return images.cumsum(1)


class ScaledBlock(nn.Module):
    """A block of the critic, with LayerScale (Touvron et al. 2021, arXiv 2103.17239), from 0.1 on.

    Attributes: norm1 and norm2, RMSNorm(width); attention, Attention; feed_forward, SwiGLU; layer_scale1
    and layer_scale2, [width].
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = Attention(width, heads, normalize=True)
        self.layer_scale1 = nn.Parameter(torch.full((width,), 0.1))
        self.norm2 = RMSNorm(width)
        self.feed_forward = SwiGLU(width)
        self.layer_scale2 = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Maps [batch, tokens, width] to the same shape."""
        x = x + self.layer_scale1 * self.attention(self.norm1(x), angles)
        return x + self.layer_scale2 * self.feed_forward(self.norm2(x))


class ClassMapping(nn.Module):
    """From a label to the vector that the critic's features are projected on.

    Attributes: embedding, Embedding(classes, size); linear1 and linear2, EqualLinear(size, size), with
    SiLU in between. Nothing is normalised.
    """

    def __init__(self, classes: int, size: int):
        super().__init__()
        self.embedding = nn.Embedding(classes, size)
        self.linear1 = EqualLinear(size, size)
        self.linear2 = EqualLinear(size, size)

    def forward(self, labels: Tensor) -> Tensor:
        """Maps labels, [batch], to [batch, size]."""
        return self.linear2(F.silu(self.linear1(self.embedding(labels))))


class Critic(nn.Module):
    """GAT's critic, which sees all of the generator's images at once.

    With labels the score is the product of `score`'s vector with the label's (Miyato and Koyama 2018,
    arXiv 1802.05637), not divided by anything. Without, `score` gives the score itself, and `table` does
    not matter. Positions are known by the rotary embedding only.

    Attributes: patch_embedding, Linear(patch^2 inputs channels, width), whose inputs are laid out as
    [row, column, input, channel]; cls, [width], which starts as N(0, 0.02^2); blocks, `depth`
    ScaledBlocks; norm, RMSNorm(width); score, Linear(width, table), or Linear(width, 1) without classes;
    class_mapping, ClassMapping, or None without classes.

    Args:
        size: the images' height and width.
        channels: the images' channels.
        patch: the height and width of a token's patch.
        depth: the number of blocks.
        width: the dimensions of tokens.
        heads: the number of attention heads.
        classes: 0 for a critic without labels.
        inputs: the number of images that one score is for.
        table: the dimensions of a label's vector.
    """

    angles: Tensor

    def __init__(self, size: int, channels: int, patch: int, depth: int, width: int, heads: int,
                 classes: int, inputs: int = 4, table: int = 2048):
        super().__init__()
        self.patch = patch
        self.patch_embedding = _linear(patch**2 * inputs * channels, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(ScaledBlock(width, heads) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.score = _linear(width, table if classes else 1)
        self.class_mapping = ClassMapping(classes, table) if classes else None
        angles = rotation_angles(_side(size, patch), width // heads, unrotated=1)
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps images, [batch, inputs, channels, size, size], to scores, [batch]; labels are [batch]."""
        x = self.patch_embedding(to_patches(images.flatten(1, 2), self.patch))
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, self.angles)
        x = self.score(self.norm(x[:, 0]))
        if self.class_mapping is not None:
            x = x * self.class_mapping(labels)
        return x.sum(1)


class FlowBlock(nn.Module):
    """A block of DiT with adaLN-Zero, which here does not start at zero.

    Attributes: attention, Attention without norms; inner, Linear(width, 4 width), and outer, Linear(4
    width, width), with GELU in its tanh form in between; modulation, Linear(width, 6 width), from
    SiLU(c) to [shift1, scale1, gate1, shift2, scale2, gate2], which starts as N(0, 0.1^2).
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads, normalize=False)
        self.inner = _linear(width, 4 * width)
        self.outer = _linear(4 * width, width)
        self.modulation = _small_linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Maps x, [batch, tokens, width], with c, [batch, width], to the same shape."""
        modulation = self.modulation(F.silu(c))[:, None].chunk(6, dim=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        x = x + gate1 * self.attention(layer_norm(x) * (1 + scale1) + shift1)
        y = self.inner(layer_norm(x) * (1 + scale2) + shift2)
        return x + gate2 * self.outer(F.gelu(y, approximate="tanh"))


class FlowTransformer(nn.Module):
    """What adversarial flow's generator and critic share: from images and labels to tokens."""

    positions: Tensor

    def __init__(self, size: int, channels: int, patch: int, depth: int, width: int, heads: int,
                 classes: int):
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes has to be at least 1, not {classes}: without labels all are 0")
        self.patch, self.side = patch, _side(size, patch)
        self.class_embedding = nn.Embedding(classes, width)
        nn.init.normal_(self.class_embedding.weight, std=0.02)
        self.patch_embedding = _linear(patch**2 * channels, width)
        self.blocks = nn.ModuleList(FlowBlock(width, heads) for _ in range(depth))
        self.register_buffer("positions", position_embedding(self.side, width), persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Maps images, [batch, channels, size, size], to tokens, [batch, side^2, width]."""
        x = self.patch_embedding(to_patches(images, self.patch))
        return x + self.positions.to(x.dtype)


class FlowGenerator(FlowTransformer):
    """Adversarial flow's generator: a DiT that maps noise of the images' shape to images.

    Attributes: class_embedding, Embedding(classes, width), which starts as N(0, 0.02^2) and whose rows
    are c; patch_embedding, Linear(patch^2 channels, width); blocks, `depth` FlowBlocks; modulation,
    Linear(width, 2 width), from SiLU(c) to the last norm's [shift, scale]; linear, Linear(width, patch^2
    channels). The last two start as N(0, 0.1^2), where DiT's start at 0.

    Args:
        size: the images' height and width.
        channels: the images' channels.
        patch: the height and width of a token's patch.
        depth: the number of blocks.
        width: the dimensions of tokens.
        heads: the number of attention heads.
        classes: at least 1; data without labels are one class.
    """

    def __init__(self, size: int, channels: int, patch: int, depth: int, width: int, heads: int,
                 classes: int):
        super().__init__(size, channels, patch, depth, width, heads, classes)
        self.modulation = _small_linear(width, 2 * width)
        self.linear = _small_linear(width, patch**2 * channels)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Maps z, [batch, channels, size, size], and labels, int64, [batch], to z's shape."""
        c = self.class_embedding(labels)
        x = self.embed(z)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(F.silu(c))[:, None].chunk(2, dim=2)
        return to_images(self.linear(layer_norm(x) * (1 + scale) + shift), self.side, self.patch)


class FlowCritic(FlowTransformer):
    """Adversarial flow's critic: a DiT with a learned token in front, which has no position.

    Attributes: class_embedding, patch_embedding and blocks as the generator's; token, [width], which
    starts as N(0, 0.02^2); score, Linear(width, 1) without a bias, after a norm without parameters.
    Arguments as the generator's.
    """

    def __init__(self, size: int, channels: int, patch: int, depth: int, width: int, heads: int,
                 classes: int):
        super().__init__(size, channels, patch, depth, width, heads, classes)
        self.token = nn.Parameter(0.02 * torch.randn(width))
        self.score = _linear(width, 1, bias=False)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Maps images, [batch, channels, size, size], and labels, int64, [batch], to scores, [batch]."""
        c = self.class_embedding(labels)
        x = self.embed(images)
        x = torch.cat([self.token.expand(len(x), 1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, c)
        return self.score(layer_norm(x[:, 0]))[:, 0]
