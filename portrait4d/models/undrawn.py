"""Building networks whose weights are put in right afterwards."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_IN_PLACE = (Tensor.normal_, Tensor.uniform_)


class Undrawn(TorchFunctionMode):
    """Let modules that are built inside the context have parameters that nobody filled: no random number is drawn.

    Memory for them is asked for but not touched. The device "meta" would not even ask, but makes PyTorch import its
    compiler, which takes longer than most networks take to load.
    """

    def __torch_function__(
        self, function: object, types: Sequence[type], args: Sequence = (), kwargs: Mapping | None = None
    ) -> object:
        kwargs = kwargs or {}
        if function is torch.randn:
            return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if function in _IN_PLACE or getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
