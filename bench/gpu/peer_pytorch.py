#!/usr/bin/env python3
"""Times PyTorch's training step on a GPU and prints one JSON line: the peer of training_step --device cuda.

Networks, channels_last, with synthetic random images: torchvision's, and ResNet-20 for CIFAR of peer_networks.py.
Forward, cross entropy, backward, SGD (fused) with momentum 0.9 and weight decay 1e-4. Times are the GPU's, between
events after each step; memory is the peak of what tensors held during the timed steps.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from peer_networks import make_network  # noqa: E402
from peer_quantizers import quantize  # noqa: E402

MODES = {
    "eager": None,
    "compile": {},
    "compile-graphs": {"mode": "reduce-overhead"},  # with CUDA graphs
    "compile-autotune": {"mode": "max-autotune"},
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=["resnet18", "resnet50", "resnet20"])
    parser.add_argument("size", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--quantizer", choices=["none", "sat", "lsq"], default="none")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16")
    parser.add_argument("--mode", choices=list(MODES), default="eager")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to see that the script runs")
    return parser.parse_args()


def set_precision(precision):
    tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True


def network_of(arguments):
    if arguments.model == "resnet20":
        network = make_network("resnet20")
    else:
        import torchvision

        network = getattr(torchvision.models, arguments.model)()
    if arguments.quantizer != "none":
        quantize(network, arguments.quantizer)
    return network.train().to(arguments.device, memory_format=torch.channels_last)


def make_step(arguments):
    network = network_of(arguments)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=arguments.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (arguments.batch,), device=arguments.device)
    loss_function = torch.nn.CrossEntropyLoss()
    options = MODES[arguments.mode]
    forward = network if options is None else torch.compile(network, **options)

    def step():
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = loss_function(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


class Clock:
    """Points in time on the GPU, taken without waiting for it."""

    def __init__(self, device):
        self.on_gpu = device == "cuda"

    def now(self):
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start, end):
        return start.elapsed_time(end) if self.on_gpu else (end - start) * 1e3

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()


def main():
    arguments = parse_arguments()
    torch.manual_seed(0)
    set_precision(arguments.precision)
    step, clock = make_step(arguments), Clock(arguments.device)
    start = time.perf_counter()
    for _ in range(arguments.warm_up):
        step()
    clock.wait()
    warm_up_seconds = time.perf_counter() - start
    if clock.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    points = [clock.now()]
    for _ in range(arguments.steps):
        loss = step()
        points.append(clock.now())
    clock.wait()
    times = [clock.milliseconds(a, b) for a, b in zip(points, points[1:])]
    median = statistics.median(times)
    result = {
        "model": arguments.model, "size": arguments.size, "batch": arguments.batch, "quantizer": arguments.quantizer,
        "precision": arguments.precision, "mode": arguments.mode, "device": arguments.device,
        "ms": round(median, 3), "ms_min": round(min(times), 3), "ms_max": round(max(times), 3),
        "images_per_second": round(arguments.batch / median * 1e3, 1), "warm_up_seconds": round(warm_up_seconds, 1),
        "loss": float(loss), "torch": torch.__version__}
    if clock.on_gpu:
        result |= {"peak_tensors_mb": round(torch.cuda.max_memory_allocated() / 2**20, 1),
                   "reserved_mb": round(torch.cuda.max_memory_reserved() / 2**20, 1),
                   "gpu": torch.cuda.get_device_name(), "cudnn": torch.backends.cudnn.version()}
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main()
    except torch.cuda.OutOfMemoryError:
        sys.exit("peer_pytorch.py: out of the GPU's memory")
