"""PyTorch, as Debian 12 has it (1.13): what attention, memory-bound operators and whole networks are held against.

One request of words a line on stdin, one JSON answer a line on stdout:

    attention QUERIES KEYS HEADS WIDTH VARIANT COPIES
    groupnorm SIZE CHANNELS VARIANT COPIES
    add|gelu|geglu|layernorm ROWS COLUMNS VARIANT COPIES
    network encode|unet|decode|osediff|diffbir|vit float32|bfloat16 RUNS
    clear

VARIANT is plain; for groupnorm nchw or nhwc. The first three networks are Stable Diffusion 2.1's for one 512 x 512 picture;
osediff is all of them, one after the other, diffbir SwinIR, the encoder, two steps with the ControlNet and the decoder (without
text tower in both: texts are computed once), and vit the image tower of ViT-H/14. Each module runs in the memory format that it
runs faster in. OMP_NUM_THREADS says how many threads; bench/peers.ts sets it and the rest of
the environment.
"""

import json
import os
import resource
import sys
import time

import numpy
import torch
from networks import Controlled, UNet, Vae
from swin_and_vit import SwinIR, Vision
from torch.nn import functional as F


def values(number, *shape):
    """Tensor number `number`, from -0.5 to 0.5: the numbers of lib/bench/timing.ts."""
    h = numpy.arange(numpy.prod(shape), dtype=numpy.uint32) + numpy.uint32(number * 0x632BE5AB % 2**32)
    h *= numpy.uint32(0x9E3779B1)
    h = (h ^ (h >> numpy.uint32(15))) * numpy.uint32(0x85EBCA77)
    h ^= h >> numpy.uint32(13)
    return torch.from_numpy((h >> numpy.uint32(8)).astype(numpy.float32) / 2**24 - 0.5).reshape(shape)


def attention(queries, keys, heads, width, _):
    """Softmax of scores between two batched products, on [1, length, heads * width] tensors."""
    q, k, v = values(0, 1, queries, heads * width), values(1, 1, keys, heads * width), values(2, 1, keys, heads * width)

    def split(x):
        return x.view(-1, heads, width).transpose(0, 1)

    def run():
        scores = torch.baddbmm(torch.empty(1, 1, 1), split(q), split(k).transpose(1, 2), beta=0, alpha=width**-0.5)
        return torch.bmm(scores.softmax(-1), split(v)).transpose(0, 1).reshape(1, queries, heads * width)

    return run


def groupnorm(size, channels, layout):
    x = values(0, 1, size, size, channels).permute(0, 3, 1, 2)
    x = x.contiguous() if layout == "nchw" else x.contiguous(memory_format=torch.channels_last)
    gamma, beta = values(1, channels), values(2, channels)
    return lambda: F.silu(F.group_norm(x, 32, gamma, beta, 1e-5), inplace=True).permute(0, 2, 3, 1)


def add(rows, columns, _):
    a, b = values(0, rows, columns), values(1, rows, columns)
    return lambda: a + b


def gelu(rows, columns, _):
    x = values(0, rows, columns)
    return lambda: F.gelu(x)


def geglu(rows, columns, _):
    x = values(0, rows, columns)

    def run():
        a, b = x.chunk(2, -1)
        return a * F.gelu(b)

    return run


def layernorm(rows, columns, _):
    x, gamma, beta = values(0, rows, columns), values(1, columns), values(2, columns)
    return lambda: F.layer_norm(x, (columns,), gamma, beta, 1e-5)


operators = {f.__name__: f for f in (attention, groupnorm, add, gelu, geglu, layernorm)}
jobs = {}


def operator(request):
    job, copies = request.rsplit(" ", 1)
    if job not in jobs:
        name, *numbers, variant = job.split(" ")
        jobs[job] = operators[name](*map(int, numbers), variant)
        jobs[job]()
    run = jobs[job]
    start = time.perf_counter()
    for _ in range(int(copies)):
        y = run()
    seconds = (time.perf_counter() - start) / int(copies)
    flat = y.reshape(-1)
    return {"seconds": seconds, "first": flat[0].item(), "last": flat[-1].item()}


def counted(module, parameters):
    count = sum(p.numel() for p in module.parameters())
    assert count == parameters, f"{type(module).__name__} has {count} parameters, not {parameters}"
    return module


def vae():
    if "vae" not in jobs:
        jobs["vae"] = counted(Vae(), 83_653_863)
    return jobs["vae"]


def steps(name):
    """Modules with their inputs, in order, and how often each runs."""
    image, latent = torch.rand(1, 3, 512, 512) * 2 - 1, torch.randn(1, 4, 64, 64)
    rest = torch.tensor([999]), torch.randn(1, 77, 1024)
    encode, decode = (vae().encoder, (image,), 1), (vae().decoder, (latent,), 1)
    if name == "encode":
        return [encode]
    if name == "decode":
        return [decode]
    if name == "vit":
        return [(counted(Vision(), 632_076_800), (torch.randn(1, 3, 224, 224),), 1)]
    if name == "diffbir":
        stage1 = counted(SwinIR(), 15_792_587), (image,), 1
        return [stage1, encode, (counted(Controlled(), 865_910_724 + 363_153_280), (latent, latent, *rest), 2), decode]
    unet = counted(UNet(), 865_910_724), (latent, *rest), 1
    return [unet] if name == "unet" else [encode, unet, decode]


def network(name, dtype, runs):
    def cast(x):
        return x.to(dtype) if x.is_floating_point() else x

    todo = [(module.eval().to(dtype), tuple(map(cast, inputs)), times) for module, inputs, times in steps(name)]

    def seconds(module, inputs, times=1):
        start = time.perf_counter()
        for _ in range(times):
            y = module(*inputs)
        assert y.isfinite().all()
        return time.perf_counter() - start

    for module, inputs, _ in todo:

        def in_layout(layout):
            module.to(memory_format=layout)
            seconds(module, inputs)
            return seconds(module, inputs)

        module.to(memory_format=min((torch.contiguous_format, torch.channels_last), key=in_layout))
    times = [sum(seconds(*step) for step in todo) for _ in range(runs)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": times, "peakRss": peak}


def answer(request):
    if request == "clear":
        jobs.clear()
        return {}
    if request.startswith("network "):
        _, name, dtype, runs = request.split(" ")
        return network(name, getattr(torch, dtype), int(runs))
    return operator(request)


torch.set_grad_enabled(False)
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
for line in sys.stdin:
    try:
        print(json.dumps(answer(line.strip())), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
