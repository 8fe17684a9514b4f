"""Generators and critics, one family per file.

Generators map `(latents [batch, latent_size], condition, train=...)` to samples, [batch, ...];
critics map `(samples, condition, train=...)` to scores, [batch], or to scores and heads. Those of images
into images are in `translation`.
"""

from jaxgan.models.autoencoder import Autoencoder, Decoder, Encoder
from jaxgan.models.classifier import Classifier
from jaxgan.models.context import ContextGenerator
from jaxgan.models.dcgan import DCGANCritic, DCGANGenerator
from jaxgan.models.flow import FlowCritic, FlowGenerator
from jaxgan.models.funnels import FunnelCritic
from jaxgan.models.gat import GATCritic, GATGenerator
from jaxgan.models.mlp import MLPCritic, MLPGenerator
from jaxgan.models.r3gan import R3GANCritic, R3GANGenerator
from jaxgan.models.resnet import ResidualBlock, ResNetCritic, ResNetGenerator
from jaxgan.models.stylegan2 import StyleGAN2Critic, StyleGAN2Generator
from jaxgan.models.text import CodeGenerator, TextAutoencoder, TextCritic, TextGenerator
from jaxgan.models.translation import PatchCritic, ResNetTranslator, UNetTranslator

__all__ = ["Autoencoder", "Classifier", "CodeGenerator", "ContextGenerator", "DCGANCritic",
           "DCGANGenerator", "Decoder", "Encoder", "FlowCritic", "FlowGenerator", "FunnelCritic",
           "GATCritic", "GATGenerator", "MLPCritic", "MLPGenerator", "PatchCritic", "R3GANCritic",
           "R3GANGenerator", "ResNetCritic", "ResNetGenerator", "ResNetTranslator", "ResidualBlock",
           "StyleGAN2Critic", "StyleGAN2Generator", "TextAutoencoder", "TextCritic", "TextGenerator",
           "UNetTranslator"]
