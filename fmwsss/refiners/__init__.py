"Refiners: scores in, a label map out. `REFINERS` has those with a name, `open_refiner` opens any."


def __getattr__(name):
    if name in ("REFINERS", "open_refiner"):
        from . import refiner

        return getattr(refiner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
