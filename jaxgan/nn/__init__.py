"""Layers that the models are made of."""

from jaxgan.nn.convolutions import conv, conv_kernel_gradient, conv_transpose
from jaxgan.nn.layers import Conv, ConvTranspose, Dense
from jaxgan.nn.random import Dropout, GaussianNoise, example_keys, module_rngs

__all__ = ["Conv", "ConvTranspose", "Dense", "Dropout", "GaussianNoise", "conv", "conv_kernel_gradient",
           "conv_transpose", "example_keys", "module_rngs"]
