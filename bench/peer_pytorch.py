#!/usr/bin/python3
"""Times PyTorch's eager training step on the networks of training_step and prints one JSON line.

    peer_pytorch.py MODEL IMAGE_SIZE BATCH VARIANT [STEPS]

VARIANT: default, channels_last, tuned, tuned_channels_last, sat. `tuned` flushes denormals; the allocator and the
BLAS are the caller's environment (see compare.py). `sat` is scale-adjusted training with 4-bit weights and
activations, written operation by operation as research code does, without its assertions, in the tuned setting.
"""

import json
import os
import resource
import statistics
import sys
import time


def define_sat(torch):
    """SAT's convolution and linear layer as plain eager PyTorch (arXiv:1912.10207, arXiv:1912.09666)."""
    nn, functional = torch.nn, torch.nn.functional

    class Round(torch.autograd.Function):
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

    def quantized_weight(w, bits):
        t = torch.tanh(w)
        u = t / torch.max(torch.abs(t))
        return 2 * Round.apply((u + 1) / 2, bits, "modified") - 1

    def quantized_activation(x, alpha, bits):
        a = torch.abs(alpha)
        c = torch.relu(x)
        n = torch.where(c < a, c, a) / a
        return a * Round.apply(n, bits, "original")

    class Conv(nn.Conv2d):
        def __init__(self, *args, first=False, **kwargs):
            super().__init__(*args, **kwargs)
            self.bits, self.first = (8 if first else 4), first
            if not first:
                self.alpha = nn.Parameter(torch.tensor(8.0))

        def forward(self, x):
            if not self.first:
                x = quantized_activation(x, self.alpha, 4)
            w = quantized_weight(self.weight, self.bits)
            return functional.conv2d(x, w, self.bias, self.stride, self.padding)

    class Linear(nn.Linear):
        def __init__(self, *args):
            super().__init__(*args)
            self.alpha = nn.Parameter(torch.tensor(10.0))

        def forward(self, x):
            w = quantized_weight(self.weight, 8)
            scale = (1 / (self.out_features**0.5)) / w.detach().std()
            return functional.linear(quantized_activation(x, self.alpha, 4), w * scale, self.bias)

    return Conv, Linear


def make_network(torch, model, sat):
    nn, functional = torch.nn, torch.nn.functional
    if sat:
        conv_class, linear_class = define_sat(torch)
    else:
        linear_class = nn.Linear

        def conv_class(*args, first=False, **kwargs):
            return nn.Conv2d(*args, **kwargs)

    def conv(inputs, outputs, kernel, stride=1, first=False):
        return conv_class(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False, first=first)

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.downsample = None
            if stride != 1 or inputs != width:
                self.downsample = nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            y += x if self.downsample is None else self.downsample(x)
            return self.relu(y)

    class ResNet(nn.Module):
        def __init__(self, stem, width, stages, blocks, classes):
            super().__init__()
            self.stem = stem
            layers, inputs = [], width
            for stage in range(stages):
                for block in range(blocks):
                    layers.append(Block(inputs, width << stage, 2 if stage > 0 and block == 0 else 1))
                    inputs = width << stage
            self.blocks = nn.Sequential(*layers)
            self.fc = linear_class(inputs, classes)

        def forward(self, x):
            y = self.blocks(self.stem(x))
            return self.fc(torch.flatten(functional.adaptive_avg_pool2d(y, 1), 1))

    if model == "resnet18":
        stem = nn.Sequential(conv(3, 64, 7, 2, first=True), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                             nn.MaxPool2d(3, 2, 1))
        return ResNet(stem, 64, 4, 2, 1000)
    if model == "resnet20":
        stem = nn.Sequential(conv(3, 16, 3, first=True), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        return ResNet(stem, 16, 3, 3, 10)
    sys.exit(f"peer_pytorch.py: unknown model {model}")


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    model, side, batch, variant = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    steps = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    import torch

    # Before anything runs in parallel: the threads of OpenMP inherit the setting.
    if variant not in ("default", "channels_last"):
        torch.set_flush_denormal(True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    torch.manual_seed(0)
    network = make_network(torch, model, variant == "sat").train()
    images = torch.randn(batch, 3, side, side)
    labels = torch.arange(batch) % 10
    if variant.endswith("channels_last"):
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loss_function = torch.nn.CrossEntropyLoss()
    times = []
    for step in range(steps + 3):
        start = time.perf_counter()
        loss = loss_function(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= 3:
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(json.dumps({
        "model": model, "size": side, "batch": batch, "variant": variant, "ms": round(median * 1e3, 2),
        "ms_min": round(min(times) * 1e3, 2), "ms_max": round(max(times) * 1e3, 2),
        "images_per_second": round(batch / median, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "parameters": sum(p.numel() for p in network.parameters()), "loss": float(loss.detach()),
        "torch": torch.__version__, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
