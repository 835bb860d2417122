"""What PyTorch is doing around a call: autocast, tracing, transforming."""

import torch
from torch import Tensor, nn


def autocasts(device_type: str) -> bool:
    """Tell whether autocast is on for a device."""
    # Devices without autocast (meta) raise when asked whether it is enabled.
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Tell what autocast makes of a floating tensor; float64 it leaves alone."""
    return tensor.dtype if tensor.dtype == torch.float64 else torch.get_autocast_dtype(tensor.device.type)


def is_plain_cpu_call(*tensors: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Tell whether an operator that only computes can be called: eager tensors of these dtypes on the CPU."""
    if torch.compiler.is_compiling():  # first: what follows cannot be traced
        return False
    return (
        all(t.device.type == "cpu" and t.dtype in dtypes and t.numel() > 0 for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        # Neither torch.func nor subclasses of Tensor know what to do with an operator of this kind.
        and not torch._C._are_functorch_transforms_active()
        and all(type(t) in (Tensor, nn.Parameter) for t in tensors)
        and torch._C._len_torch_dispatch_stack() == 0
    )


def is_known(size: int) -> bool:
    """Tell whether a size is a number, and not a symbol of a graph that serves many."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports sympy, which is slow

    return has_static_value(size)
