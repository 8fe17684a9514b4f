"""The benchmarks' PyTorch networks: published counts and names, layers against scipy and by hand."""

import importlib
import re

import numpy as np
import pytest
from scipy import signal

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test EXTRAS=test,parity)")
r3gan = importlib.import_module("benchmarks.r3gan_torch")
stylegan2 = importlib.import_module("benchmarks.stylegan2_torch")

TINY_R3GAN = {"widths": (16, 16, 8), "blocks": (2, 1, 2), "cardinalities": (2, 4, 1)}
TINY_STYLEGAN2 = {"base": 64, "latent_size": 7, "style_size": 9, "mapping_layers": 2}
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


@pytest.fixture(autouse=True)
def draws():
    torch.manual_seed(0)


def _count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def _one_hot(labels, classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def _shapes(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _doubled(image):
    """Zeros after every pixel, then an interpolating filter, cropped to twice the size."""
    sparse = np.zeros([2 * size for size in image.shape])
    sparse[::2, ::2] = image
    return signal.convolve2d(sparse, 4 * KERNEL)[1:-2, 1:-2]


def _halved(image):
    return signal.convolve2d(image, KERNEL)[2:-1:2, 2:-1:2]


def _on_each(function, images):
    return np.array([[function(channel) for channel in image] for image in np.asarray(images)])


@pytest.mark.parametrize(("preset", "classes", "generator", "critic"), [
    ("cifar10", 0, 20_732_160, 20_683_776),
    ("cifar10", 10, 20_781_952, 21_280_512),
    ("ffhq64", 0, 22_429_824, 22_381_440),
    ("ffhq256", 0, 23_057_952, 23_009_568),
    ("imagenet32", 1000, 82_914_304, 86_548_992),
    ("imagenet64", 1000, 103_570_432, 107_205_120),
])
def test_r3gan_has_the_published_parameters(preset, classes, generator, critic):
    settings = r3gan.PRESETS[preset] | {"num_classes": classes}
    with torch.device("meta"):
        assert _count(r3gan.Generator(**settings)) == generator
        assert _count(r3gan.Critic(**settings)) == critic


@pytest.mark.parametrize(("shared", "layers", "architecture", "generator", "critic"), [
    ({"resolution": 1024, "base": 32768}, 8, "resnet", 30_370_060, 29_012_513),
    ({"resolution": 256, "base": 16384}, 8, "resnet", 24_767_458, 24_001_089),
    ({"resolution": 32, "base": 32768}, 2, "orig", 19_947_539, 20_720_641),
    ({"resolution": 32, "base": 32768, "num_classes": 10}, 2, "orig", 20_215_315, 23_089_664),
])
def test_stylegan2_has_the_published_parameters(shared, layers, architecture, generator, critic):
    with torch.device("meta"):
        assert _count(stylegan2.Generator(**shared, mapping_layers=layers)) == generator
        assert _count(stylegan2.Discriminator(**shared, architecture=architecture)) == critic


def _r3gan_block(prefix, width, cardinality):
    return {f"{prefix}.LinearLayer1.Layer.weight": (2 * width, width, 1, 1),
            f"{prefix}.LinearLayer2.Layer.weight": (2 * width, 2 * width // cardinality, 3, 3),
            f"{prefix}.LinearLayer3.Layer.weight": (width, 2 * width, 1, 1),
            f"{prefix}.NonLinearity1.Bias": (2 * width,),
            f"{prefix}.NonLinearity2.Bias": (2 * width,)}


def test_r3gan_has_the_published_names():
    generator = r3gan.Generator(**TINY_R3GAN, latent_size=6, num_classes=5, class_size=7)
    assert _shapes(generator) == {
        "MainLayers.0.Layers.0.Basis": (16, 4, 4),
        "MainLayers.0.Layers.0.LinearLayer.weight": (16, 13),
        **_r3gan_block("MainLayers.0.Layers.1", 16, 2),
        **_r3gan_block("MainLayers.0.Layers.2", 16, 2),
        "MainLayers.1.Layers.0.Resampler.Kernel": (4, 4),
        **_r3gan_block("MainLayers.1.Layers.1", 16, 4),
        "MainLayers.2.Layers.0.LinearLayer.Layer.weight": (8, 16, 1, 1),
        "MainLayers.2.Layers.0.Resampler.Kernel": (4, 4),
        **_r3gan_block("MainLayers.2.Layers.1", 8, 1),
        **_r3gan_block("MainLayers.2.Layers.2", 8, 1),
        "AggregationLayer.Layer.weight": (3, 8, 1, 1),
        "EmbeddingLayer.weight": (7, 5)}

    critic = r3gan.Critic(**TINY_R3GAN, num_classes=5)
    assert _shapes(critic) == {
        "ExtractionLayer.Layer.weight": (8, 3, 1, 1),
        **_r3gan_block("MainLayers.0.Layers.0", 8, 1),
        **_r3gan_block("MainLayers.0.Layers.1", 8, 1),
        "MainLayers.0.Layers.2.Resampler.Kernel": (4, 4),
        "MainLayers.0.Layers.2.LinearLayer.Layer.weight": (16, 8, 1, 1),
        **_r3gan_block("MainLayers.1.Layers.0", 16, 4),
        "MainLayers.1.Layers.1.Resampler.Kernel": (4, 4),
        **_r3gan_block("MainLayers.2.Layers.0", 16, 2),
        **_r3gan_block("MainLayers.2.Layers.1", 16, 2),
        "MainLayers.2.Layers.2.Basis.weight": (16, 1, 4, 4),
        "MainLayers.2.Layers.2.LinearLayer.weight": (16, 16),
        "EmbeddingLayer.weight": (16, 5)}


def test_stylegan2_has_the_published_names():
    generator = stylegan2.Generator(16, num_classes=3, **TINY_STYLEGAN2)
    critic = stylegan2.Discriminator(16, num_classes=3, base=64)
    layer = r"(weight|bias|noise_strength|noise_const|resample_filter|affine\.(weight|bias))"
    names = re.compile(rf"""synthesis\.b4\.const | synthesis\.b\d+\.resample_filter
        | synthesis\.(b4|b8|b16)\.conv1\.{layer} | synthesis\.(b8|b16)\.conv0\.{layer}
        | synthesis\.(b4|b8|b16)\.torgb\.(weight|bias|affine\.(weight|bias))
        | mapping\.(w_avg|(embed|fc0|fc1)\.(weight|bias))""", re.VERBOSE)
    shapes = _shapes(generator)
    assert [name for name in shapes if not names.fullmatch(name)] == []
    assert len(shapes) == 1 + 3 + 5 * 7 + 3 * 4 + 1 + 3 * 2
    assert shapes["synthesis.b4.const"] == (16, 4, 4)
    assert shapes["synthesis.b8.conv0.weight"] == (8, 16, 3, 3)
    assert shapes["synthesis.b8.conv0.affine.weight"] == (16, 9)
    assert shapes["synthesis.b8.conv1.noise_const"] == (8, 8)
    assert shapes["synthesis.b8.conv1.noise_strength"] == ()
    assert shapes["synthesis.b16.torgb.weight"] == (3, 4, 1, 1)
    assert shapes["mapping.embed.weight"] == (9, 3)
    assert shapes["mapping.fc0.weight"] == (9, 16)

    convolution = r"(weight|bias|resample_filter)"
    names = re.compile(rf"""(b16|b8)\.resample_filter | b16\.fromrgb\.{convolution}
        | (b16|b8)\.(conv0|conv1)\.{convolution} | (b16|b8)\.skip\.(weight|resample_filter)
        | b4\.conv\.{convolution} | b4\.(fc|out)\.(weight|bias)
        | mapping\.(embed|fc[0-7])\.(weight|bias)""", re.VERBOSE)
    shapes = _shapes(critic)
    assert [name for name in shapes if not names.fullmatch(name)] == []
    assert len(shapes) == 2 + 3 + 4 * 3 + 2 * 2 + 3 + 4 + 9 * 2
    assert shapes["b16.fromrgb.weight"] == (4, 3, 1, 1)
    assert shapes["b16.conv1.weight"] == (8, 4, 3, 3)
    assert shapes["b16.skip.weight"] == (8, 4, 1, 1)
    assert shapes["b4.conv.weight"] == (16, 17, 3, 3)
    assert shapes["b4.fc.weight"] == (16, 256)
    assert shapes["b4.out.weight"] == (16, 16)
    assert shapes["mapping.embed.weight"] == (16, 3)
    plain = _shapes(stylegan2.Discriminator(16, base=64, architecture="orig"))
    assert not [name for name in plain if "skip" in name or "mapping" in name]
    assert plain["b4.out.weight"] == (1, 16)


def test_filters_resample_as_scipy_does():
    images = torch.randn(2, 3, 5, 6)
    up, down = _on_each(_doubled, images), _on_each(_halved, images[:, :, :4])
    kernel = stylegan2.resampling_filter()
    np.testing.assert_allclose(kernel, KERNEL)
    np.testing.assert_allclose(r3gan.Resampler(up=True)(images), up, atol=1e-6)
    np.testing.assert_allclose(r3gan.Resampler(up=False)(images[:, :, :4]), down, atol=1e-6)
    np.testing.assert_allclose(stylegan2.double(images, kernel), up, atol=1e-6)
    np.testing.assert_allclose(stylegan2.smooth(images[:, :, :4], kernel, 1, stride=2), down, atol=1e-6)


def test_r3gan_changes_the_width_where_images_are_small():
    x = torch.randn(2, 3, 4, 4)
    up, down = r3gan.Transition(3, 2, up=True), r3gan.Transition(3, 5, up=False)
    with torch.no_grad():
        mixed = torch.einsum("oi,nihw->nohw", up.LinearLayer.Layer.weight[:, :, 0, 0], x)
        np.testing.assert_allclose(up(x), _on_each(_doubled, mixed), atol=1e-6)
        halved = torch.tensor(_on_each(_halved, x)).float()
        expected = torch.einsum("oi,nihw->nohw", down.LinearLayer.Layer.weight[:, :, 0, 0], halved)
        np.testing.assert_allclose(down(x), expected, atol=1e-6)


def test_r3gan_starts_as_its_bases():
    generator = r3gan.Generator([12] * 2, [3, 1], [2, 2], latent_size=5)
    critic = r3gan.Critic([12] * 2, [3, 1], [2, 2])
    z, images = torch.randn(2, 5), torch.randn(2, 3, 8, 8)
    basis = generator.MainLayers[0].Layers[0]
    with torch.no_grad():
        small = np.einsum("oi,ni,ohw->nohw", basis.LinearLayer.weight, z, basis.Basis)
        to_rgb = generator.AggregationLayer.Layer.weight[:, :, 0, 0]
        expected = np.einsum("oi,nihw->nohw", to_rgb, _on_each(_doubled, small))
        np.testing.assert_allclose(generator(z), expected, atol=1e-5)

        from_rgb = critic.ExtractionLayer.Layer.weight[:, :, 0, 0]
        small = _on_each(_halved, np.einsum("oi,nihw->nohw", from_rgb, images))
        last = critic.MainLayers[-1].Layers[-1]
        expected = np.einsum("nchw,chw,oc->n", small, last.Basis.weight[:, 0], last.LinearLayer.weight)
        np.testing.assert_allclose(critic(images), expected, atol=1e-5)


def test_r3gan_scales_its_blocks_by_their_number():
    generator = r3gan.Generator([64] * 2, [10, 6], [1, 1])
    for name, std in (("LinearLayer1", (2 / 1.04 / 64)**0.5 / 2),
                      ("LinearLayer2", (2 / 1.04 / (9 * 128))**0.5 / 2), ("LinearLayer3", 0.0)):
        for stage, block in ((0, 1), (0, 10), (1, 6)):
            weight = getattr(generator.MainLayers[stage].Layers[block], name).Layer.weight
            assert weight.std().item() == pytest.approx(std, rel=0.05)


def test_an_r3gan_block_by_hand():
    block = r3gan.ResidualBlock(width=2, cardinality=2, expansion=1, depth=1)
    with torch.no_grad():
        block.LinearLayer1.Layer.weight[:] = torch.tensor([[1.0, 1.0], [0.0, -1.0]])[:, :, None, None]
        block.NonLinearity1.Bias[:] = torch.tensor([-1.0, 1.0])
        block.LinearLayer2.Layer.weight[:] = torch.tensor([2.0, 1.0])[:, None, None, None]
        block.NonLinearity2.Bias[:] = torch.tensor([0.0, 3.0])
        block.LinearLayer3.Layer.weight[:] = torch.eye(2)[:, :, None, None]
        # One pixel sees only a kernel's centre. (3, -4) -> (-1, 4) -> (-2, 5) -> (-.4, 5) -> (-.8, 5)
        # -> (-.8, 8) -> (-.16, 8), and x is added.
        y = block(torch.tensor([3.0, -4.0]).view(1, 2, 1, 1))
    np.testing.assert_allclose(y.flatten(), [2.84, 4.0], rtol=1e-6)


def test_labels_reach_both_networks():
    z, labels = torch.randn(1, 64).expand(3, -1), _one_hot([0, 1, 1], 4)
    generator = r3gan.Generator(**TINY_R3GAN, num_classes=4)
    critic = r3gan.Critic(**TINY_R3GAN, num_classes=4)
    images = generator(z, labels)
    assert images.shape == (3, 3, 16, 16)
    assert (images[0] - images[1]).abs().max() > 1e-3
    np.testing.assert_array_equal(images[1].detach(), images[2].detach())
    scores = critic(images[:1].expand(3, -1, -1, -1), labels)
    assert scores.shape == (3,)
    features = critic.MainLayers(critic.ExtractionLayer(images[:1]))[0]
    expected = critic.EmbeddingLayer.weight.T[[0, 1, 1]] @ features
    np.testing.assert_allclose(scores.detach(), expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_one_convolution_for_each_example(demodulate, up):
    x, weight, style = torch.randn(3, 4, 5, 5), torch.randn(2, 4, 3, 3), torch.randn(3, 4)
    y = stylegan2.modulated_convolution(x, weight, style, demodulate, up)
    for image, factors, got in zip(x.numpy(), style.numpy(), y.numpy(), strict=True):
        kernel = weight.numpy() * factors[:, None, None]
        if demodulate:
            kernel = kernel / np.sqrt(np.square(kernel).sum((1, 2, 3), keepdims=True))
        if up:  # zeros between pixels, and a convolution in the mathematical sense
            sparse = np.zeros((4, 9, 9))
            sparse[:, ::2, ::2] = image
            expected = [sum(map(signal.convolve2d, sparse, one)) for one in kernel]
        else:  # what deep learning calls so is a correlation
            expected = [sum(signal.correlate2d(*pair, "same") for pair in zip(image, one, strict=True))
                        for one in kernel]
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_synthesis_layer_that_doubles():
    layer = stylegan2.SynthesisLayer(1, 1, 8, style_size=2, up=True)
    x, w = torch.randn(1, 1, 4, 4), torch.randn(1, 2)
    with torch.no_grad():
        layer.noise_strength.fill_(0.5)
        layer.bias.fill_(0.25)
        y = layer(x, w, "const")[0, 0]
        style = (w[0] @ layer.affine.weight[0] / 2**0.5 + 1).item()
    kernel = style * layer.weight.detach().numpy()[0, 0]
    sparse = np.zeros((7, 7))
    sparse[::2, ::2] = x[0, 0]
    wide = signal.convolve2d(sparse, kernel / np.linalg.norm(kernel))
    features = signal.convolve2d(np.pad(wide, 1), 4 * KERNEL, mode="valid")
    before = features + 0.5 * layer.noise_const.numpy() + 0.25
    np.testing.assert_allclose(y, 2**0.5 * np.where(before > 0, before, 0.2 * before), atol=1e-5)


def test_a_convolution_that_halves_smooths_first():
    x = torch.randn(1, 1, 6, 6)
    smooth = signal.convolve2d(np.pad(x[0, 0], 2), KERNEL, mode="valid")
    layer = stylegan2.Convolution(1, 1, 3, down=True)
    features = signal.correlate2d(smooth, layer.weight.detach()[0, 0] / 3, mode="valid")[::2, ::2]
    expected = 2**0.5 * np.where(features > 0, features, 0.2 * features)
    np.testing.assert_allclose(layer(x).detach()[0, 0], expected, atol=1e-6)
    skip = stylegan2.Convolution(1, 1, 1, down=True, linear=True)
    expected = skip.weight.item() * _halved(x[0, 0])
    np.testing.assert_allclose(skip(x).detach()[0, 0], expected, atol=1e-6)


def test_deviation_over_a_minibatch_by_hand():
    x = torch.tensor([[0.0, 2.0], [5.0, 5.0], [4.0, 2.0], [5.0, -1.0]]).view(4, 2, 1, 1)
    # Groups of two: examples 0 and 2 differ by 2 from their mean in one channel, 1 and 3 by 3 in one.
    y = stylegan2.minibatch_deviation(x, 2)
    np.testing.assert_array_equal(y[:, :2], x)
    np.testing.assert_allclose(y[:, 2].flatten(), [1.0, 1.5, 1.0, 1.5], atol=1e-3)
    y = stylegan2.minibatch_deviation(x[:1], 4)
    np.testing.assert_allclose(y[0].flatten(), [0.0, 2.0, 0.0], atol=1e-3)


def test_mapping_truncates_towards_the_running_mean():
    mapping = stylegan2.MappingNetwork(5, 3, 4, num_ws=6, layers=2, decay=0.75)
    z, labels = torch.randn(8, 5), _one_hot([0, 1, 2, 0, 1, 2, 0, 1], 3)
    with torch.no_grad():
        ws = mapping(z, labels)
        assert ws.shape == (8, 6, 4)
        np.testing.assert_allclose(mapping.w_avg, 0.25 * ws[:, 0].mean(0), rtol=1e-5)
        kept = mapping.w_avg.clone()
        mapping(z, labels, update_mean=False)
        mapping.eval()(z, labels)
        assert torch.equal(mapping.w_avg, kept)
        np.testing.assert_allclose(mapping(7 * z, labels), ws, rtol=1e-4, atol=1e-6)  # z is normalised
        cut = mapping(z, labels, truncation_psi=0.5, truncation_cutoff=2)
    np.testing.assert_allclose(cut[:, :2], (ws[:, :2] + kept) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(cut[:, 2:], ws[:, 2:])


def test_a_dense_layer_with_a_multiplier():
    layer = stylegan2.Dense(1000, 400, activation=True, multiplier=0.01)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.01)
    with torch.no_grad():
        layer.bias.fill_(300.0)
        y = layer(torch.ones(1, 1000))[0]
    before = layer.weight.detach().sum(1) / 100 / 1000**0.5 + 3
    np.testing.assert_allclose(y, 2**0.5 * torch.maximum(before, 0.2 * before), rtol=1e-4, atol=1e-4)


def test_synthesis_takes_a_w_and_noise_for_each_layer():
    generator = stylegan2.Generator(16, **TINY_STYLEGAN2).eval()
    synthesis = generator.synthesis
    layers = [module for module in synthesis.modules() if isinstance(module, stylegan2.SynthesisLayer)]
    assert synthesis.num_ws == 6
    assert len(layers) == 5
    for layer in layers:
        torch.nn.init.ones_(layer.noise_strength)
    z = torch.randn(2, 7)
    images = generator(z, noise="const")
    assert images.shape == (2, 3, 16, 16)
    own = [layer.noise_const for layer in layers]
    np.testing.assert_array_equal(generator(z, noise=own).detach(), images.detach())
    plain = generator(z, noise="none").detach()
    np.testing.assert_array_equal(generator(z, noise=[torch.zeros(())] * 5).detach(), plain)
    assert (generator(z, noise="random") - generator(z, noise="random")).abs().max() > 1e-2
    middle = generator(z, truncation_psi=0.0, noise="const").detach()
    np.testing.assert_array_equal(middle[0], middle[1])

    ws = generator.mapping(z).detach().requires_grad_(True)
    sizes = torch.autograd.grad(synthesis(ws, "const").sum(), ws, create_graph=True)[0].square().sum(2)
    assert sizes.shape == (2, 6)
    assert (sizes > 0).all()
    sizes.sum().backward()  # as the regularisation of path lengths needs it
    assert torch.isfinite(layers[0].weight.grad).all()
    assert layers[0].weight.grad.abs().max() > 0


def test_the_last_w_is_the_last_image_s_alone():
    generator = stylegan2.Generator(8, **TINY_STYLEGAN2)
    ws = generator.mapping(torch.randn(1, 7)).detach()
    other = ws.clone()
    other[:, -1] += 1
    blocks = [generator.synthesis.b4, generator.synthesis.b8]
    with torch.no_grad():
        x, small = blocks[0](None, None, ws[:, :2], ["none"])
        x, _ = blocks[1](x, small, ws[:, 1:], ["none", "none"])
        expected = _on_each(_doubled, small) + blocks[1].torgb(x, other[:, 3]).numpy()
        np.testing.assert_allclose(generator.synthesis(other, "none"), expected, rtol=1e-4, atol=1e-5)
        rgb = blocks[1].torgb
        style = rgb.affine(other[:, 3]) / 8**0.5
        image = np.einsum("oi,ni,nihw->nohw", rgb.weight[:, :, 0, 0], style, x)
        np.testing.assert_allclose(rgb(x, other[:, 3]), image, rtol=1e-4, atol=1e-5)


def test_a_residual_block_adds_its_branches():
    block = stylegan2.DiscriminatorBlock(3, 3, 5, 3, residual=True)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        plain, skip = block.conv1(block.conv0(x)), block.skip(x)
        np.testing.assert_allclose(block(x), 0.5**0.5 * (plain + skip), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_stylegan2_critic_with_labels(architecture):
    critic = stylegan2.Discriminator(16, 3, base=64, architecture=architecture, group_size=2)
    images, labels = torch.randn(4, 3, 16, 16), _one_hot([0, 1, 1, 2], 3)
    scores = critic(images, labels)
    assert scores.shape == (4,)
    features = []
    critic.b4.register_forward_hook(lambda module, inputs, output: features.append(output))
    critic(images, labels)
    mapped = critic.mapping(None, labels)
    np.testing.assert_allclose(scores.detach(), (features[0] * mapped).sum(1).detach() / 4, rtol=1e-4)
    # The order within a batch decides who is in whose group, and nothing else does.
    swapped = critic(images[[2, 3, 0, 1]], labels[[2, 3, 0, 1]])
    np.testing.assert_allclose(swapped.detach(), scores[[2, 3, 0, 1]].detach(), rtol=1e-4, atol=1e-5)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="architecture"):
        stylegan2.Discriminator(8, architecture="skip")
    with pytest.raises(ValueError, match="noise"):
        stylegan2.Generator(8, base=64)(torch.randn(1, 512), noise="constant")
