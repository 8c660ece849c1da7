#!/usr/bin/python3
"""Images/s of Pillow and torchvision's transforms on an ImageFolder, in this process; prints one line of JSON.

usage: peer_loader.py FOLDER train|eval [SIZE [EPOCHS]]

`train` is RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize; `eval` is Resize, CenterCrop, ToTensor,
Normalize. The first epoch fills the page cache and isn't counted.
"""

import json
import pathlib
import statistics
import sys
import time

import PIL
import torch
import torchvision
from PIL import Image, features
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main():
    folder, pipeline = pathlib.Path(sys.argv[1]), sys.argv[2]
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 224
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    torch.set_num_threads(1)
    torch.manual_seed(0)
    geometry = {"train": [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()],
                "eval": [transforms.Resize(int(size / 0.875)), transforms.CenterCrop(size)]}[pipeline]
    transform = transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    files = sorted((folder / "train").glob("*/*"))
    speeds, cpu_speeds = [], []
    for epoch in range(epochs + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        for file in files:
            with Image.open(file) as image:
                transform(image.convert("RGB"))
        if epoch > 0:
            speeds.append(len(files) / (time.perf_counter() - start))
            cpu_speeds.append(len(files) / (time.process_time() - cpu_start))
    print(json.dumps({"pipeline": pipeline, "images": len(files), "size": size,
                      "images_per_second": round(statistics.median(speeds), 1),
                      "images_per_cpu_second": round(statistics.median(cpu_speeds), 1), "pillow": PIL.__version__,
                      "torchvision": torchvision.__version__,
                      "libjpeg_turbo": features.version_feature("libjpeg_turbo")}))


if __name__ == "__main__":
    main()
