"""What is trained in every column: numbers only, so that a column loads its own framework alone."""

import math
from dataclasses import dataclass
from typing import Any

# What the benchmarks need to know; all else is told to the experiment.
_NOT_TOLD = {"name", "title", "experiment", "preset", "family", "sample_shape", "value_range",
             "examples", "sampling_batch", "generator_batches", "condition"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One network with the settings that it is trained with; each family adds its own.

    Attributes:
        name: what the command line calls it.
        title: what the tables call it.
        experiment: the module in `experiments` that specifies jaxgan's side.
        preset: the experiment's settings that these change; "" for the defaults.
        family: which networks and which training: "dcgan", "resnet", "mlp", "r3gan", "stylegan2",
            "pix2pix", "cyclegan" or "transformers".
        sample_shape: shape of a sample, (height, width, channels) or (2,).
        value_range: of a sample.
        examples: how many there are in the (synthetic) data set; 0 where samples are drawn anew.
        sampling_batch: how many samples are drawn at once when sampling is measured.
        batch_size: samples in a critic update.
        generator_batches: how many critic batches make up a generator batch.
        n_critic: critic updates in an iteration.
        learning_rate: Adam's.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
    """

    name: str
    title: str
    experiment: str
    preset: str = ""
    family: str
    sample_shape: tuple[int, ...]
    value_range: tuple[float, float] = (-1.0, 1.0)
    examples: int = 0
    sampling_batch: int = 256
    batch_size: int
    generator_batches: int = 1
    n_critic: int = 1
    learning_rate: float
    beta1: float
    beta2: float

    @property
    def cycle(self) -> int:
        """In how many iterations all that isn't due in each comes round; only such are counted."""
        return 1

    def changes(self) -> dict[str, Any]:
        """What the experiment is told, by the names of its settings."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_TOLD}


@dataclass(frozen=True, kw_only=True)
class WGANGP(Setting):
    """Gulrajani et al. 2017 (arXiv 1704.00028), as its public code runs it.

    Attributes:
        width: channels (or hidden units) that the others derive from.
        latent_size: latent variables.
        batch_norm: whether the generator has it; no critic has.
        dequantize: whether uniform noise is added to the pixels.
        penalty_weight: of the gradient penalty.
        decay_steps: iterations over which the learning rate falls to zero; 0 for never.
    """

    width: int
    latent_size: int = 128
    batch_norm: bool = False
    dequantize: bool = False
    n_critic: int = 5
    penalty_weight: float = 10.0
    learning_rate: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    decay_steps: int = 0

    def changes(self) -> dict[str, Any]:
        """What the experiment is told; what is left out follows from the preset and the model."""
        implied = {"latent_size", "batch_norm", "dequantize"}
        told = {name: value for name, value in super().changes().items() if name not in implied}
        return told | ({"model": self.family} if self.experiment == "cifar10" else {})


@dataclass(frozen=True, kw_only=True)
class R3GAN(Setting):
    """Huang et al. 2024 (arXiv 2501.05441); what has a final value changes to it by half a cosine.

    Attributes:
        width: channels of each stage, from 4x4 upwards, with commas between.
        blocks: residual blocks of a stage.
        cardinality: groups of each stage's 3x3 convolutions, likewise.
        expansion: how much wider a block is inside than outside.
        latent_size: latent variables.
        penalty_weight: gamma of R1 and R2.
        final_penalty_weight: what it becomes; so too the next ones.
        final_learning_rate: see there.
        final_beta2: see there.
        decay_steps: iterations over which all this changes.
        ema_half_life: images in which the average generator forgets half of what it holds.
        final_ema_half_life: what that becomes.
    """

    width: str
    blocks: int = 1
    cardinality: str
    expansion: int = 2
    latent_size: int = 64
    penalty_weight: float = 0.5
    final_penalty_weight: float = 0.05
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    final_beta2: float = 0.99
    decay_steps: int = 3000
    ema_half_life: float = 0.0
    final_ema_half_life: float = 20_000.0


@dataclass(frozen=True, kw_only=True)
class StyleGAN2(Setting):
    """Karras et al. 2020 (arXiv 1912.04958).

    Attributes:
        width: channels of the smallest activations;
        base: those of r x r pixels have base / r, if that is less.
        latent_size: latent variables.
        w_size: dimensions of a style.
        mapping_layers: dense layers between latents and styles.
        style_mixing: the probability that the later layers get other latents' styles.
        noise: what is added to the generator's activations: "random" or "constant".
        group_size: samples among which the critic sees how much they differ.
        penalty_weight: gamma of R1.
        penalty_every: critic updates in one of which R1 is due, so many times as heavy.
        path_weight: of the path length regularisation.
        path_every: generator updates in one of which it is due, so many times as heavy.
        ema_half_life: images in which the average generator forgets half of what it holds.
    """

    width: int = 64
    base: int = 1024
    latent_size: int = 64
    w_size: int = 64
    mapping_layers: int = 2
    style_mixing: float = 0.9
    noise: str = "random"
    group_size: int = 4
    penalty_weight: float = 0.1
    penalty_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    learning_rate: float = 2.5e-3
    beta1: float = 0.0
    beta2: float = 0.99
    ema_half_life: float = 10_000.0

    @property
    def cycle(self) -> int:
        """The iterations in which both regularisations come round."""
        return math.lcm(self.penalty_every, self.path_every)


@dataclass(frozen=True, kw_only=True)
class Pix2Pix(Setting):
    """Isola et al. 2017 (arXiv 1611.07004), without dropout, which PyTorch's U-Net hasn't.

    Attributes:
        width: channels of both networks' first layers.
        stages: how often the U-Net halves an image: until a pixel is left, as the experiment has it.
        halvings: the patch critic's, as the experiment has them for images of this size.
        dropout: none, see above.
        l1_weight: of the mean absolute difference from the partner.
        decay_steps: iterations in the second half of which the learning rate falls to zero.
    """

    width: int = 16
    stages: int
    halvings: int
    dropout: float = 0.0
    l1_weight: float = 100.0
    learning_rate: float = 1e-3
    beta1: float = 0.5
    beta2: float = 0.999
    decay_steps: int = 1500

    def changes(self) -> dict[str, Any]:
        """What the experiment is told; it finds stages and halvings by itself."""
        return {name: value for name, value in super().changes().items()
                if name not in ("stages", "halvings")}


@dataclass(frozen=True, kw_only=True)
class CycleGAN(Setting):
    """Zhu et al. 2017 (arXiv 1703.10593).

    Attributes:
        width: channels of all networks' first layers.
        blocks: residual blocks of a generator.
        halvings: the patch critics', as the experiment has them for images of this size.
        adversarial_weight: of the generators' least squares, (1 - D)^2 / 2: the paper's has no half.
        cycle_weight: of the mean absolute difference of an image and what two translations make of it.
        identity_weight: of that of an image and what the generator into its own domain makes of it.
        history_size: earlier translations of which the critics are shown one half of the time.
        decay_steps: iterations in the second half of which the learning rate falls to zero.
    """

    width: int = 16
    blocks: int = 6
    halvings: int
    adversarial_weight: float = 2.0
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    history_size: int = 50
    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay_steps: int = 2500

    def changes(self) -> dict[str, Any]:
        """What the experiment is told; it finds halvings by itself."""
        return {name: value for name, value in super().changes().items() if name != "halvings"}


@dataclass(frozen=True, kw_only=True)
class Transformers(Setting):
    """GAT, 2025 (arXiv 2509.24935), for images in classes.

    Attributes:
        depth: blocks of each network.
        width: features of a token.
        heads: of the attention.
        patch: height and width of what is a token.
        outputs: of the generator, each of which the critic is shown with a level of noise.
        classes: how many there are.
        class_width: dimensions in which the critic compares an image and its class.
        latent_size: latent variables.
        penalty_weight: gamma of R1 and R2.
        finite_difference: the step by which these are measured.
        max_gradient_norm: what a network's gradient is scaled down to; 0: to nothing.
        ema_decay: of the averaged generator.
    """

    depth: int = 4
    width: int = 128
    heads: int = 4
    patch: int = 4
    outputs: int = 4
    classes: int = 10
    class_width: int = 256
    latent_size: int = 64
    penalty_weight: float = 0.1
    finite_difference: float = 0.01
    max_gradient_norm: float = 1.0
    learning_rate: float = 2e-3
    beta1: float = 0.0
    beta2: float = 0.99
    ema_decay: float = 0.995


@dataclass(frozen=True, kw_only=True)
class Preset(Setting):
    """An experiment's own settings, of which none is changed but the size of the batch.

    Attributes:
        condition: what its samples have as a condition: "", "images" or "classes".
    """

    family: str = ""
    condition: str = ""
    learning_rate: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0

    def changes(self) -> dict[str, Any]:
        """What the experiment is told; all else it knows."""
        return {"batch_size": self.batch_size}


@dataclass(frozen=True, kw_only=True)
class GAT(Preset):
    """GAT, 2025 (arXiv 2509.24935), a published size; without remat and without changed images.

    Attributes:
        depth: blocks of each network.
        width: features of a token.
        patch: height and width of what is a token.
        outputs: of the generator.
        latent_size: latent variables.
        class_size: dimensions in which the generator is told a class.
        class_width: dimensions in which the critic compares an image and its class.
    """

    depth: int
    width: int
    patch: int = 2
    outputs: int = 4
    latent_size: int = 64
    class_size: int = 64
    class_width: int = 2048

    def changes(self) -> dict[str, Any]:
        """What the experiment is told; all else it knows."""
        return super().changes() | {"augment": "none", "augment_p": None,
                                    "augment_operations": None, "remat": False}


# "tiny" is no one's: it is where the overhead of a dispatch shows, and what the tests run. R3GAN,
# StyleGAN2, pix2pix, CycleGAN and GAT have the experiments' default settings, but for their sizes.
SETTINGS = {setting.name: setting for setting in (
    WGANGP(name="mnist_dcgan", title="MNIST DCGAN", experiment="mnist", preset="paper", family="dcgan",
           sample_shape=(28, 28, 1), value_range=(0.0, 1.0), width=64, batch_size=50,
           examples=60_000),
    WGANGP(name="cifar_dcgan", title="CIFAR DCGAN", experiment="cifar10", family="dcgan",
           sample_shape=(32, 32, 3), width=128, batch_norm=True, batch_size=64, examples=50_000),
    WGANGP(name="cifar_resnet", title="CIFAR ResNet", experiment="cifar10", family="resnet",
           sample_shape=(32, 32, 3), width=128, batch_norm=True, dequantize=True, batch_size=64,
           generator_batches=2, learning_rate=2e-4, beta1=0.0, decay_steps=100_000,
           examples=50_000),
    WGANGP(name="toy_mlp", title="toy MLP", experiment="gaussians", preset="paper", family="mlp",
           sample_shape=(2,), width=512, latent_size=2, batch_size=256, penalty_weight=0.1,
           sampling_batch=4096),
    R3GAN(name="r3gan", title="R3GAN", experiment="r3gan", family="r3gan", sample_shape=(32, 32, 3),
          width="64,64,64,32", cardinality="8,8,8,4", batch_size=32, examples=50_000),
    StyleGAN2(name="stylegan2", title="StyleGAN2", experiment="stylegan2", family="stylegan2",
              sample_shape=(32, 32, 3), batch_size=32, examples=50_000),
    Pix2Pix(name="pix2pix", title="pix2pix", experiment="pix2pix", family="pix2pix",
            sample_shape=(64, 64, 3), stages=6, halvings=2, batch_size=16, examples=400),
    CycleGAN(name="cyclegan", title="CycleGAN", experiment="cyclegan", family="cyclegan",
             sample_shape=(64, 64, 3), halvings=2, batch_size=4, examples=1000),
    Transformers(name="gat", title="GAT", experiment="gat", family="transformers",
                 sample_shape=(32, 32, 3), batch_size=32, examples=50_000),
    WGANGP(name="tiny", title="tiny MLP", experiment="gaussians", preset="paper", family="mlp",
           sample_shape=(2,), width=16, latent_size=2, batch_size=16, penalty_weight=0.1),
)}
NETWORKS = tuple(name for name in SETTINGS if name != "tiny")
# Networks of published sizes, which nothing is timed of here: they are compiled alone.
PRESETS = {setting.name: setting for setting in (
    Preset(name="resnet64", title="64x64 ResNet", experiment="images", preset="paper",
           sample_shape=(64, 64, 3), batch_size=64, n_critic=5),
    Preset(name="text", title="language model", experiment="text", preset="paper",
           sample_shape=(32, 96), batch_size=64, n_critic=10),
    Preset(name="pix2pix_256", title="pix2pix, 256x256", experiment="pix2pix", preset="paper",
           sample_shape=(256, 256, 3), condition="images", batch_size=1),
    Preset(name="cyclegan_256", title="CycleGAN, 256x256", experiment="cyclegan", preset="paper",
           sample_shape=(256, 256, 3), condition="images", batch_size=1),
    Preset(name="stylegan2_cifar10", title="StyleGAN2, CIFAR-10", experiment="stylegan2",
           preset="cifar10", sample_shape=(32, 32, 3), condition="classes", batch_size=64),
    Preset(name="r3gan_cifar10", title="R3GAN, CIFAR-10", experiment="r3gan", preset="cifar10",
           sample_shape=(32, 32, 3), condition="classes", batch_size=512),
    *(GAT(name=f"gat_{size}2", title=f"GAT-{size.upper()}/2", experiment="gat", preset=f"{size}2",
          sample_shape=(32, 32, 4), condition="classes", depth=depth, width=width, batch_size=batch)
      for size, (depth, width, batch) in {"s": (12, 384, 32), "b": (12, 768, 32),
                                          "xl": (28, 1152, 16)}.items()),
)}
WGAN_GP = tuple(name for name in NETWORKS if isinstance(SETTINGS[name], WGANGP))

# The runs that are timed several at once: lanes.py has them.
LANES = {"toy": "toy MLPs (512 wide, batch 256)", "digits_mlp": "digits' MLPs (384 wide, batch 64)",
         "digits_dcgan": "digits' DCGANs"}

@dataclass(frozen=True, kw_only=True)
class Penalised:
    """A critic that R1 is measured on, as an experiment has it.

    Attributes:
        title: what the table calls it.
        experiment: whose it is.
        preset: that experiment's settings; "" for the defaults.
        changes: of these.
        shape: of a sample.
        batch_size: samples in an update.
    """

    title: str
    experiment: str
    preset: str = ""
    changes: tuple[tuple[str, Any], ...] = ()
    shape: tuple[int, ...]
    batch_size: int = 64


# differences.py measures R1 by finite differences on them.
PENALISED = {
    "mlp": Penalised(title="toy MLP", experiment="gaussians", preset="paper", shape=(2,),
                     batch_size=256),
    "dcgan": Penalised(title="DCGAN, 28x28x1", experiment="mnist", preset="paper", shape=(28, 28, 1)),
    "resnet": Penalised(title="ResNet of 64 channels, 32x32x3", experiment="cifar10",
                        changes=(("model", "resnet"), ("width", 64)), shape=(32, 32, 3)),
    "r3gan": Penalised(title="R3GAN, 32x32x3", experiment="r3gan", shape=(32, 32, 3),
                       changes=(("width", "64,64,64,32"), ("cardinality", "8,8,8,4"))),
    "stylegan2": Penalised(title="StyleGAN2, 32x32x3", experiment="stylegan2", shape=(32, 32, 3)),
    "patches": Penalised(title="pix2pix, 64x64x3", experiment="pix2pix", shape=(64, 64, 3),
                         batch_size=16),
    "text": Penalised(title="language model, 32 characters of 64", experiment="text", shape=(32, 64),
                      changes=(("width", 64),)),
    "gat": Penalised(title="GAT, 8x8x1", experiment="gat", shape=(8, 8, 1),
                     changes=(("classes", 0),)),
    "flow": Penalised(title="adversarial flow, 8x8x1", experiment="adversarial_flow", shape=(8, 8, 1),
                      changes=(("classes", 0),)),
}

# The critics that are timed alone, and the constraints on them: critics.py has them.
CRITICS = {"mlp": "MLP, three layers of 256 (maxmin), 64 dimensions, batch 512",
           "dcgan": "DCGAN of 64 channels, 28x28x1, batch 64"}
AUGMENTATIONS = {"none": "nothing", "diffaugment": "DiffAugment", "ada": "ADA, p = 0.5",
                 "all": "ADA with filters, noise and holes, p = 0.5"}
CONSTRAINTS = {"none": "nothing", "clip": "weights clipped", "spectral": "spectral normalisation",
               "orthonormal": "orthonormal layers", "penalty": "gradient penalty"}
