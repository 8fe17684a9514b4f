"""The autoencoder against diffusers' `AutoencoderKL`, on random weights in its layout."""

import jax
import numpy as np
import pytest

from jaxgan.features import load_weights
from jaxgan.models.published import autoencoder

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.usefixtures("quick_compilation")
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _theirs(widths, layers, **options):
    """Their network, with all parameters drawn at random, as biases that start at 0 hide errors."""
    torch.manual_seed(0)
    count = len(widths)
    network = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * count, up_block_types=("UpDecoderBlock2D",) * count,
        block_out_channels=widths, layers_per_block=layers, **options).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=max(weight[0].numel(), 4) ** -0.5)
    return network


def _chw(array):
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _hwc(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("options", [
    {}, {"mid_block_add_attention": False, "use_quant_conv": False, "use_post_quant_conv": False,
         "latent_channels": 16}])
def test_moments_and_images_are_those_of_diffusers(tmp_path, options):
    """Read from a file that it has saved; the older names of attention are understood as well."""
    theirs = _theirs((32, 64, 64), 2, **options)
    theirs.save_pretrained(tmp_path)
    state = load_weights(tmp_path / "diffusion_pytorch_model.safetensors")
    for old, new in OLDER.items() if not options else ():
        state = {name.replace(f"attentions.0.{old}.", f"attentions.0.{new}."): array
                 for name, array in state.items()}
    model, variables = autoencoder(state)
    images, latents = (np.random.default_rng(seed).normal(size=shape).astype(np.float32)
                       for seed, shape in enumerate([(2, 16, 24, 3), (2, 4, 6, model.latent_channels)]))
    with torch.no_grad():
        moments = _hwc(theirs.encode(_chw(images)).latent_dist.parameters)
        decoded = _hwc(theirs.decode(_chw(latents)).sample)
    for method, given, wanted in (("encode", images, moments), ("decode", latents, decoded)):
        found = jax.jit(lambda x, method=method: model.apply(variables, x, method=method))(given)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_stable_diffusions_sizes_are_theirs():
    """Shapes alone: 84 million numbers."""
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2)
    state = {name: np.broadcast_to(np.float32(0), tuple(value.shape))
             for name, value in theirs.state_dict().items()}
    model, variables = autoencoder(state)
    assert (model.widths, model.layers, model.latent_channels) == ((128, 256, 512, 512), 2, 4)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 83_653_863
