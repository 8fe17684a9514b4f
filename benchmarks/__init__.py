"""Side-by-side measurements: jaxgan, Flax's stock layers and PyTorch, on one machine in one run."""
