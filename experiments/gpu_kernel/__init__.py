"""The LIF neuron as Pallas GPU kernels (Mosaic GPU), used as a neuron of one's own."""
