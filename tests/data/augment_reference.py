"""Makes augment_reference.safetensors: images before and after operations of Pillow, by the calls and with the
parameters that torchvision makes of them (transforms.functional for 8-bit PIL images, transforms.RandAugment).

    python3 -m venv venv && venv/bin/pip install pillow numpy safetensors
    venv/bin/python tests/data/augment_reference.py tests/data/augment_reference.safetensors

A tensor `image NAME` is an image, [H, W, 3]. `NAME OPERATION PARAMETER...` is what the operation makes of it.
"""
import sys

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, __version__
from safetensors.numpy import save_file

SIDE = 24
BINS = 31


def images():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    picture = np.stack([200 * x, 60 + 150 * y * x, 230 - 180 * y], -1) + 25 * rng.standard_normal((SIDE, SIDE, 3))
    flat = np.full((SIDE, SIDE, 3), 90) + np.stack([0 * x, (x > 0.5) * 40, rng.integers(0, 3, x.shape)], -1)
    colours = np.concatenate([rng.integers(0, 256, (32 * 32 - 512, 3)), rng.integers(0, 2, (512, 3)) * 128 +
                              rng.integers(0, 128, (512, 1))]).reshape(32, 32, 3)
    narrow = rng.integers(0, 256, (2, 9, 3))
    return {name: np.clip(a, 0, 255).astype(np.uint8)
            for name, a in dict(picture=picture, flat=flat, colours=colours, narrow=narrow).items()}


def hue(image, turn):
    h, s, v = image.convert("HSV").split()
    turned = np.array(h) + np.int32(turn * 255).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned, "L"), s, v)).convert("RGB")


def shear(image, x, y):  # about the upper left corner
    return image.transform(image.size, Image.AFFINE, [1, x, 0, y, 1, 0], Image.NEAREST)


def translate(image, x, y):
    return image.transform(image.size, Image.AFFINE, [1, 0, -x, 0, 1, -y], Image.NEAREST)


# RandAugment's table: strongest form, whether it has a sign, what it does with the value.
def rand_augment():
    def line(low, high):  # torch.linspace in float32, from both ends to the middle
        low, high, i = np.float32(low), np.float32(high), np.arange(BINS, dtype=np.float32)
        step = (high - low) / np.float32(BINS - 1)
        return np.where(i < BINS // 2, low + step * i, high - step * (np.float32(BINS - 1) - i))

    far = line(0, 150 / 331 * SIDE)
    posterize = 8 - np.round(np.arange(BINS) / ((BINS - 1) / 4)).astype(int)
    nothing = np.zeros(BINS)
    return [
        (nothing, False, lambda i, m: i),
        (line(0, 0.3), True, lambda i, m: shear(i, m, 0)),
        (line(0, 0.3), True, lambda i, m: shear(i, 0, m)),
        (far, True, lambda i, m: translate(i, int(m), 0)),
        (far, True, lambda i, m: translate(i, 0, int(m))),
        (line(0, 30), True, lambda i, m: i.rotate(m, Image.NEAREST)),
        (line(0, 0.9), True, lambda i, m: ImageEnhance.Brightness(i).enhance(1 + m)),
        (line(0, 0.9), True, lambda i, m: ImageEnhance.Color(i).enhance(1 + m)),
        (line(0, 0.9), True, lambda i, m: ImageEnhance.Contrast(i).enhance(1 + m)),
        (line(0, 0.9), True, lambda i, m: ImageEnhance.Sharpness(i).enhance(1 + m)),
        (posterize, False, lambda i, m: ImageOps.posterize(i, int(m))),
        (line(255, 0), False, lambda i, m: ImageOps.solarize(i, m)),
        (nothing, False, lambda i, m: ImageOps.autocontrast(i)),
        (nothing, False, lambda i, m: ImageOps.equalize(i)),
    ]


def main(path):
    tensors = {}
    for name, array in images().items():
        image = Image.fromarray(array)
        tensors["image " + name] = array

        def put(result, *words):
            tensors[" ".join([name, *map(str, words)])] = np.array(result)

        if name in ("picture", "narrow"):
            for factor in (0.0, 0.3, 0.77, 1.0, 1.4, 3.1):
                put(ImageEnhance.Brightness(image).enhance(factor), "brightness", factor)
                put(ImageEnhance.Contrast(image).enhance(factor), "contrast", factor)
                put(ImageEnhance.Color(image).enhance(factor), "saturation", factor)
                put(ImageEnhance.Sharpness(image).enhance(factor), "sharpness", factor)
        if name in ("picture", "colours"):
            for turn in (-0.5, -0.13, 0.0, 0.002, 0.1, 0.25, 0.5):
                put(hue(image, turn), "hue", turn)
        if name != "colours":
            put(ImageOps.autocontrast(image), "autocontrast")
            put(ImageOps.equalize(image), "equalize")
        if name != "picture":
            continue
        for number, (values, signed, apply) in enumerate(rand_augment()):
            for magnitude in (0, 9, 17, 30):
                for sign in (1, -1) if signed else (1,):
                    put(apply(image, sign * float(values[magnitude])), "operation", number, magnitude, sign)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, {"pillow": __version__})


main(sys.argv[1])
