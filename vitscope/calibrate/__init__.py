"""calibrate: time kernels on what is attached, fit the cost of each class of them, and write a device file."""
