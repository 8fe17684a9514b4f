"""Layers that the models are made of."""

from jaxgan.nn.convolutions import conv, conv_kernel_gradient, conv_transpose
from jaxgan.nn.layers import Conv, ConvTranspose, Dense

__all__ = ["Conv", "ConvTranspose", "Dense", "conv", "conv_kernel_gradient", "conv_transpose"]
