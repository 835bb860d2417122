"""What timm calls our networks."""

PREFIX = "lookaround_"


def timm_name(name: str) -> str:
    """Return the name under which timm has one of our networks.

    The attention networks keep theirs. The convolutional ones get a prefix, for timm has a `resnet50` of its
    own with other weights.

    Example:
        >>> timm_name("sasa_resnet50"), timm_name("resnet50")
        ('sasa_resnet50', 'lookaround_resnet50')
    """
    return name if name.startswith("sasa_") else f"{PREFIX}{name}"
