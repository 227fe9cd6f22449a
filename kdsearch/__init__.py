"""kdsearch: search for knowledge distillation of semantic segmentation networks."""

__version__ = "0.1.0"
