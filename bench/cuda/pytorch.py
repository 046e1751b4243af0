"""PyTorch on a GPU: what our kernels are held against there.

One request of words a line on stdin, one JSON answer a line on stdout:

    device
    conv PASS IMAGES HEIGHT WIDTH INPUTS OUTPUTS KERNEL STRIDE WEIGHTS DTYPE RUNS
    linear PASS ROWS INPUTS OUTPUTS WEIGHTS DTYPE RUNS
    attention PASS BATCH HEADS QUERIES KEYS WIDTH DTYPE RUNS
    groupnorm|groupnormgrad SIZE CHANNELS DTYPE RUNS
    add|gelu|geglu|layernorm|softmax ROWS COLUMNS DTYPE RUNS

An answer has the median seconds of each way that PyTorch can do it, as {"seconds": {"channels last": 1e-5}}: each of RUNS
between two events, with the level 2 cache written over in between, after as many to warm up as cuDNN needs to choose.
"""

import json
import statistics
import sys

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

dtypes = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def random(dtype, *shape):
    return torch.rand(*shape, device="cuda", dtype=dtypes[dtype]) - 0.5


def conv(direction, images, height, width, inputs, outputs, kernel, stride, _, dtype):
    def image(channels, step):
        x = random(dtype, images, channels, height // step, width // step)
        return x.contiguous(memory_format=torch.channels_last)

    weight = random(dtype, outputs, inputs, kernel, kernel).contiguous(memory_format=torch.channels_last)
    x, pad = image(inputs, 1), kernel // 2
    if direction == "forward":
        bias = random(dtype, outputs)
        return {"channels last": lambda: F.conv2d(x, weight, bias, stride, pad)}
    dy, mask = image(outputs, stride), [direction == "input", direction == "weight", False]

    def backward():
        return torch.ops.aten.convolution_backward(
            dy, x, weight, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, mask
        )

    return {"channels last": backward}


def linear(direction, rows, inputs, outputs, _, dtype):
    x, w, b = random(dtype, rows, inputs), random(dtype, outputs, inputs), random(dtype, outputs)
    assert direction == "forward"
    return {"cuBLAS": lambda: F.linear(x, w, b)}


def attention(direction, batch, heads, queries, keys, width, dtype):
    """Of [batch, length, heads * width], as the networks have it: heads are strided views."""

    def heads_of(length):
        x = random(dtype, batch, length, heads * width).requires_grad_(direction == "backward")
        return x.view(batch, length, heads, width).transpose(1, 2)

    q, k, v = heads_of(queries), heads_of(keys), heads_of(keys)
    ways = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):

        def forward(backend=backend):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        try:
            y = forward()
        except RuntimeError:
            continue  # not for this type or width
        if direction == "forward":
            ways[backend.name.lower()] = forward
        else:
            dy = torch.rand_like(y)
            ways[backend.name.lower()] = lambda y=y, dy=dy: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True)
    return ways


def norm_of(size, channels, dtype):
    x = random(dtype, 1, channels, size, size).contiguous(memory_format=torch.channels_last)
    gamma, beta = random(dtype, channels), random(dtype, channels)
    return x, gamma, beta, lambda: F.silu(F.group_norm(x, 32, gamma, beta, 1e-5))


def groupnorm(size, channels, dtype):
    *_, run = norm_of(size, channels, dtype)
    return {"eager": run}


def groupnormgrad(size, channels, dtype):
    x, gamma, beta, run = norm_of(size, channels, dtype)
    for t in (x, gamma, beta):
        t.requires_grad_()
    y = run()
    dy = torch.rand_like(y)
    return {"eager": lambda: torch.autograd.grad(y, (x, gamma, beta), dy, retain_graph=True)}


def add(rows, columns, dtype):
    a, b = random(dtype, rows, columns), random(dtype, rows, columns)
    return {"eager": lambda: a + b}


def gelu(rows, columns, dtype):
    x = random(dtype, rows, columns)
    return {"eager": lambda: F.gelu(x)}


def geglu(rows, columns, dtype):
    x = random(dtype, rows, columns)

    def run():
        a, b = x.chunk(2, -1)
        return a * F.gelu(b)

    return {"eager": run}


def layernorm(rows, columns, dtype):
    x, gamma, beta = random(dtype, rows, columns), random(dtype, columns), random(dtype, columns)
    return {"eager": lambda: F.layer_norm(x, (columns,), gamma, beta, 1e-5)}


def softmax(rows, columns, dtype):
    x = random(dtype, rows, columns)
    return {"eager": lambda: x.softmax(-1)}


jobs = {f.__name__: f for f in (conv, linear, attention, groupnorm, groupnormgrad, add, gelu, geglu, layernorm, softmax)}
flush = torch.empty(128 << 20, device="cuda", dtype=torch.uint8)


def seconds(run, runs):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for i in range(-3, runs):
        flush.fill_(i & 1)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= 0:
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def answer(words):
    if words == ["device"]:
        return {"name": torch.cuda.get_device_name(), "torch": torch.__version__}
    name, *words, dtype, runs = words
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    ways = jobs[name](*(int(word) if word.isdigit() else word for word in words), dtype)
    return {"seconds": {way: seconds(run, int(runs)) for way, run in ways.items()}}


torch.backends.cudnn.benchmark = True
for line in sys.stdin:
    try:
        print(json.dumps(answer(line.split())), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]}), flush=True)
