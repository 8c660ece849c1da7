#!/usr/bin/python3
"""Times PyTorch's eager training step on the networks of training_step and prints one JSON line.

    peer_pytorch.py MODEL IMAGE_SIZE BATCH VARIANT [STEPS]

VARIANT: default, channels_last, tuned, tuned_channels_last, sat. `tuned` flushes denormals; the allocator and the
BLAS are the caller's environment (see compare.py). `sat` is scale-adjusted training with 4-bit weights and
activations, as peer_quantizers.py defines it, in the tuned setting.
"""

import json
import os
import resource
import statistics
import sys
import time


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    model, side, batch, variant = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    steps = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    import torch
    from peer_networks import make_network
    from peer_quantizers import quantize

    # Before anything runs in parallel: the threads of OpenMP inherit the setting.
    if variant not in ("default", "channels_last"):
        torch.set_flush_denormal(True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    torch.manual_seed(0)
    network = make_network(model).train()
    if variant == "sat":
        quantize(network, "sat")
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
