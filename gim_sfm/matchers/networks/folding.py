"""Batch normalisations made part of the convolutions before them, as they are at inference."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(network: nn.Module) -> None:
    """Multiplies every batch normalisation into its convolution, in place.

    That is `conv1` for `bn1`, and otherwise the layer defined just before it.
    """
    for parent in list(network.modules()):
        before = ""
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                namesake = name.replace("bn", "conv")
                folded = namesake if hasattr(parent, namesake) and namesake != name else before
                convolution = parent.get_submodule(folded)
                assert isinstance(convolution, nn.Conv2d)
                parent.add_module(folded, fuse_conv_bn_eval(convolution, layer))
                parent.add_module(name, nn.Identity())
            before = name
