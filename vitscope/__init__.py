"""vitscope: explore and profile efficient vision backbones."""

__version__ = "0.1.0"
