"""Devices, processes and signals: how a run lies over hardware, and how it stops."""
