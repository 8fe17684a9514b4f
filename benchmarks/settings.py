"""What is trained in every column: numbers only, so that a column loads its own framework alone."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One network with the settings that it is trained with.

    Attributes:
        name: what the command line calls it.
        title: what the tables call it.
        experiment: the module in `experiments` that specifies jaxgan's side.
        family: "dcgan", "resnet" or "mlp".
        sample_shape: shape of a sample, (height, width, channels) or (2,).
        value_range: of a sample.
        width: channels (or hidden units) that the others derive from.
        latent_size: latent variables.
        batch_norm: whether the generator has it; no critic has.
        dequantize: whether uniform noise is added to the pixels.
        batch_size: samples in a critic update.
        generator_batches: how many critic batches make up a generator batch.
        n_critic: critic updates in an iteration.
        penalty_weight: of the gradient penalty.
        learning_rate: Adam's.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        decay_steps: iterations over which the learning rate falls to zero; 0 for never.
        examples: how many there are in the (synthetic) data set; 0 where samples are drawn anew.
        sampling_batch: how many samples are drawn at once when sampling is measured.
    """

    name: str
    title: str
    experiment: str
    family: str
    sample_shape: tuple[int, ...]
    value_range: tuple[float, float] = (-1.0, 1.0)
    width: int
    latent_size: int = 128
    batch_norm: bool = False
    dequantize: bool = False
    batch_size: int
    generator_batches: int = 1
    n_critic: int = 5
    penalty_weight: float = 10.0
    learning_rate: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    decay_steps: int = 0
    examples: int = 0
    sampling_batch: int = 256


# Gulrajani et al. 2017 (arXiv 1704.00028), as its public code runs them; "tiny" is no one's: it is
# where the overhead of a dispatch shows, and what the tests run.
SETTINGS = {setting.name: setting for setting in (
    Setting(name="mnist_dcgan", title="MNIST DCGAN", experiment="mnist", family="dcgan",
            sample_shape=(28, 28, 1), value_range=(0.0, 1.0), width=64, batch_size=50,
            examples=60_000),
    Setting(name="cifar_dcgan", title="CIFAR DCGAN", experiment="cifar10", family="dcgan",
            sample_shape=(32, 32, 3), width=128, batch_norm=True, batch_size=64, examples=50_000),
    Setting(name="cifar_resnet", title="CIFAR ResNet", experiment="cifar10", family="resnet",
            sample_shape=(32, 32, 3), width=128, batch_norm=True, dequantize=True, batch_size=64,
            generator_batches=2, learning_rate=2e-4, beta1=0.0, decay_steps=100_000,
            examples=50_000),
    Setting(name="toy_mlp", title="toy MLP", experiment="gaussians", family="mlp", sample_shape=(2,),
            width=512, latent_size=2, batch_size=256, penalty_weight=0.1, sampling_batch=4096),
    Setting(name="tiny", title="tiny MLP", experiment="gaussians", family="mlp", sample_shape=(2,),
            width=16, latent_size=2, batch_size=16, penalty_weight=0.1, sampling_batch=256),
)}
NETWORKS = ("mnist_dcgan", "cifar_dcgan", "cifar_resnet", "toy_mlp")
