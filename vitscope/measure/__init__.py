"""Seconds on a device that is here: runtimes (how a file is executed) × targets (where), and the protocol that times them."""
