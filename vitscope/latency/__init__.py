"""Seconds on a device that is not here: fusion rules, kernels, devices, prediction, fit and validation. Never imports torch."""
