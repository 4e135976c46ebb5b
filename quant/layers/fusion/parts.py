"""What a block was fused with. Whoever changes it gets the block's own forward, in which the change acts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from quant.layers.layer import is_hooked
from quant.layers.straight_through import is_trained


class Parts:
    """The modules inside a fused block that it passes by, and where they are registered."""

    def __init__(self, block: nn.Module, names: tuple[str, ...]) -> None:
        """`names` are children of `block`, which are passed by with all that is in them."""
        inside = [(block._modules, name) for name in names if block._modules.get(name) is not None]
        for name in names:
            child = block._modules.get(name)
            owners = [] if child is None else list(child.modules())
            inside += [(owner._modules, inner) for owner in owners for inner in owner._modules]
        self._places = tuple((modules, name, modules[name]) for modules, name in inside)

    def are_untouched(self) -> bool:
        """Whether each is still there, without a hook and with the forward of its class."""
        for modules, name, part in self._places:
            if modules.get(name) is not part:
                return False
            if part is not None and is_hooked(part):
                return False
        return not (torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def runs_fused(block: nn.Module, *inputs: Tensor | None) -> bool:
    """Whether a fused block may run as such now: not in training, nor under grad where that matters, and with the
    parts that it was fused with."""
    parts: Parts = block.__dict__["fused_parts"]
    return not block.training and parts.are_untouched() and not is_trained(block, *inputs)
