"""Robustness of trained networks: to corrupted inputs, faulty spikes, inexact weights, and attacks."""
