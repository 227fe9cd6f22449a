"""kdsearch: search for knowledge distillation of semantic segmentation networks."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import kdsearch` must not cost a torch import.
    if name == "load_student":
        from kdsearch.models.student import load_student

        return load_student
    raise AttributeError(f"module 'kdsearch' has no attribute {name!r}")
