"""Quantized layers for PyTorch at W4A4, written operation by operation as research code does, without its assertions.

quantize(network, "sat" | "lsq") puts them in the place of a network's convolutions and linear layers.
"""

import torch
from torch import nn
from torch.nn import functional

BITS = 4


class SatRound(torch.autograd.Function):
    """Rounds z in [0, 1]; the gradient passes."""

    @staticmethod
    def forward(ctx, z, bits, scheme):
        if scheme == "original":  # levels 0..1, both ends included
            a = 2**bits - 1
            return torch.round(a * z) / a
        a = 2**bits
        return torch.clamp(torch.floor(a * z), max=a - 1) / a

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


def sat_weight(w, bits):
    t = torch.tanh(w)
    u = t / torch.max(torch.abs(t))
    return 2 * SatRound.apply((u + 1) / 2, bits, "modified") - 1


def sat_activation(x, alpha):
    a = torch.abs(alpha)
    c = torch.relu(x)
    n = torch.where(c < a, c, a) / a
    return a * SatRound.apply(n, BITS, "original")


class SatConv2d(nn.Conv2d):
    """SAT (arXiv:1912.10207, arXiv:1912.09666): the first one has 8-bit weights, and its input stays as it is."""

    def adapt(self, first):
        self.first = first
        if not first:
            self.alpha = nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        if not self.first:
            x = sat_activation(x, self.alpha)
        w = sat_weight(self.weight, 8 if self.first else BITS)
        return functional.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class SatLinear(nn.Linear):
    """The last layer: 8-bit weights, scaled back to a good initialization's standard deviation."""

    def adapt(self):
        self.alpha = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        w = sat_weight(self.weight, 8)
        scale = (1 / (self.out_features**0.5)) / w.detach().std()
        return functional.linear(sat_activation(x, self.alpha), w * scale, self.bias)


class LsqRound(torch.autograd.Function):
    """Rounds half to even; the gradient passes."""

    @staticmethod
    def forward(ctx, z):
        return torch.round(z)

    @staticmethod
    def backward(ctx, grad):
        return grad


def lsq(x, clip, low):
    """LSQ (arXiv:1902.08153) in QTool's form, with a learned clipping level: codes from low = 0 or -1 times it."""
    n = 2**BITS - 1
    a = torch.abs(clip)
    w = torch.clamp(x / a, low, 1)
    if low == 0:
        q = LsqRound.apply(w * n) / n
    else:
        q = 2 * (LsqRound.apply((w + 1) / 2 * n) / n) - 1
    return q * a


class LsqConv2d(nn.Conv2d):
    """One clipping level an output channel for weights, one a layer for activations."""

    def adapt(self):
        self.weight_clip = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
        self.activation_clip = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        x = lsq(x, self.activation_clip, 0)
        w = lsq(self.weight, self.weight_clip, -1)
        return functional.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


def quantize(network, quantizer):
    """lsq leaves the first and the last layer in float, as its reference code does."""
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for i, layer in enumerate(layers):
        first, last = i == 0, i == len(layers) - 1
        # The layer stays the same object with the same weights, and gets another class's forward.
        if quantizer == "sat" and isinstance(layer, nn.Conv2d):
            layer.__class__ = SatConv2d
            layer.adapt(first)
        elif quantizer == "sat":
            layer.__class__ = SatLinear
            layer.adapt()
        elif not (first or last):
            layer.__class__ = LsqConv2d
            layer.adapt()
    return network
