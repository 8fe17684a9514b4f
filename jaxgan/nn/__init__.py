"""Layers that the models are made of."""

from jaxgan.nn.activations import group_sort, maxmin
from jaxgan.nn.attention import SelfAttention
from jaxgan.nn.convolutions import conv, conv_kernel_gradient, conv_transpose
from jaxgan.nn.layers import Conv, ConvTranspose, Dense
from jaxgan.nn.orthonormal import Orthonormal, orthonormal_kernels
from jaxgan.nn.random import Dropout, GaussianNoise, example_keys, module_rngs

__all__ = ["Conv", "ConvTranspose", "Dense", "Dropout", "GaussianNoise", "Orthonormal",
           "SelfAttention", "conv", "conv_kernel_gradient", "conv_transpose", "example_keys",
           "group_sort", "maxmin", "module_rngs", "orthonormal_kernels"]
