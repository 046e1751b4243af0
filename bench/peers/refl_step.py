"""One step of DiffBIR trained by rewards in PyTorch 2, for a host with a GPU: what ours is held against there.

    python3 bench/peers/refl_step.py [RUNS]

49 steps of DDIM without gradient and one with, at 512 x 512, batch 1; decoder, the reward's and LPIPS's gradients, the step of
AdamW. Eager, bf16 with float32 masters, channels-last, fused attention, the frozen ControlNet only where it is read. Random
weights. Left out, in this side's favour: SwinIR, the wavelet loss, the judge's learning. Prints one JSON line.
"""

import json
import statistics
import sys

import networks
import torch
from torch import nn
from torch.nn import functional as F


def attend(q, k, v, heads):
    n, length, channels = q.shape
    q, k, v = (t.view(n, -1, heads, channels // heads).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, channels)


networks.attend = attend


def features(unet, x, timesteps, context):
    """The encoder and the middle of a UNet: all that the decoder gets. And the timestep's embedding."""
    half = unet.base // 2
    rates = torch.exp(torch.arange(half, device=x.device) * (-networks.math.log(10000) / half))
    angles = timesteps[:, None] * rates[None]
    emb = unet.time(torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype))
    found = []
    for pieces in [*unet.down, unet.middle]:
        x = run(pieces, x, emb, context)
        found.append(x)
    return found, emb


def run(pieces, h, emb, context):
    for piece in pieces:
        kinds = {networks.ResBlock: (emb,), networks.Transformer: (context,)}
        h = piece(h, *kinds.get(type(piece), ()))
    return h


class ControlNet(nn.Module):
    """The UNet's encoder over the noisy latent beside the condition's, and a 1x1 convolution a feature."""

    def __init__(self, **sizes):
        super().__init__()
        self.unet = networks.UNet(**sizes)
        self.unet.up = self.unet.out = None
        base = self.unet.base
        self.unet.down[0][0] = nn.Conv2d(8, base, 3, padding=1)
        with torch.no_grad():
            shapes = features(self.unet, torch.zeros(1, 8, 8, 8), torch.zeros(1), torch.zeros(1, 2, 1024))[0]
        self.zeros = nn.ModuleList(nn.Conv2d(x.shape[1], x.shape[1], 1) for x in shapes)

    def forward(self, x, hint, timesteps, context):
        found, _ = features(self.unet, torch.cat([x, hint], 1), timesteps, context)
        return [zero(feature) for zero, feature in zip(self.zeros, found)]


def predict(unet, x, timesteps, context, control):
    found, emb = features(unet, x, timesteps, context)
    *skips, h = (feature + own for feature, own in zip(found, control))
    for pieces in unet.up:
        h = run(pieces, torch.cat([h, skips.pop()], 1), emb, context)
    return unet.out(h)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.out(attend(*self.qkv(self.norm1(x)).chunk(3, -1), self.heads))
        return x + self.mlp(self.norm2(x))


class Judge(nn.Module):
    """CLIP ViT-H/14's image tower, against a caption's features that are computed once."""

    def __init__(self, width=1280, layers=32, heads=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 14, 14, bias=False)
        self.places = nn.Parameter(torch.randn(257, width) / 50)
        self.blocks = nn.Sequential(nn.LayerNorm(width), *(Block(width, heads) for _ in range(layers)), nn.LayerNorm(width))
        self.project = nn.Linear(width, 1024, bias=False)

    def forward(self, images, caption):
        small = F.interpolate(images.clamp(0, 1), (224, 224), mode="bilinear", antialias=True)
        x = self.patches(small).flatten(2).transpose(1, 2)
        x = torch.cat([x[:, :1], x], 1) + self.places
        return F.cosine_similarity(self.project(self.blocks(x)[:, 0]), caption).mean()


class Lpips(nn.Module):
    """VGG16's features after the last convolution of each of its five groups."""

    def __init__(self, groups=((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        super().__init__()
        self.groups, inputs = nn.ModuleList(), 3
        for i, (width, count) in enumerate(groups):
            layers = [nn.MaxPool2d(2)] if i else []
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            self.groups.append(nn.Sequential(*layers))

    def forward(self, a, b):
        distance = 0
        for group in self.groups:
            a, b = group(a), group(b)
            distance = distance + (F.normalize(a, eps=1e-5) - F.normalize(b, eps=1e-5)).square().sum(1).mean()
        return distance


def steps(count):
    """The levels that DDIM of so many steps walks through, ending at t = 1."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    times = list(range(1, 1000, 1000 // count))[::-1]
    return [(t, alphas[t].item(), alphas[s].item()) for t, s in zip(times, times[1:] + [0])]


def main(runs, device="cuda", side=512, count=50, sizes=({}, {}, {}, {}), dtype=torch.bfloat16):
    torch.manual_seed(0)
    unet, control, frozen = networks.UNet(**sizes[0]), ControlNet(**sizes[0]), ControlNet(**sizes[0])
    vae, judge, lpips = networks.Vae(**sizes[1]), Judge(**sizes[2]), Lpips(**sizes[3])
    parts = [net.to(device, dtype, memory_format=torch.channels_last) for net in (unet, frozen, vae, judge, lpips)]
    for net in parts:
        net.requires_grad_(False)
    # Masters stay float32 and are rounded at every use.
    control.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(control.parameters(), lr=5e-5, weight_decay=0.01)
    image = torch.rand(1, 3, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    context = torch.randn(1, 77, 1024, device=device, dtype=dtype)
    caption = torch.randn(1, 1024, device=device, dtype=dtype)

    def at(x, hint, t):
        timesteps = torch.full((1,), t, device=device)
        with torch.autocast(device, dtype):
            own = control(x, hint, timesteps, context)
        return timesteps, own, predict(unet, x, timesteps, context, [f.to(dtype) for f in own])

    def step():
        with torch.no_grad():
            hint = vae.encoder(2 * image - 1)[:, :4] * 0.18215
            x = torch.randn_like(hint)
            *before, (t, alpha, _) = steps(count)
            for s, a, b in before:
                noise = at(x, hint, s)[2]
                clean = (x - (1 - a) ** 0.5 * noise) / a**0.5
                x = b**0.5 * clean + (1 - b) ** 0.5 * noise
        timesteps, own, noise = at(x, hint, t)
        with torch.no_grad():
            kept = frozen(x, hint, timesteps, context)
        decoded = vae.decoder((x - (1 - alpha) ** 0.5 * noise) / alpha**0.5 / 0.18215) / 2 + 0.5
        drift = sum((a.float() - b.float()).square().mean() for a, b in zip(own, kept))
        loss = 0.005 * (1 - judge(decoded, caption)) + 0.01 * lpips(decoded, image) + 1e-4 * drift
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seconds = []
    for turn in range(runs + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        if turn > 1:
            seconds.append(begin.elapsed_time(end) / 1000)
    peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"device": torch.cuda.get_device_name(), "seconds": statistics.median(seconds), "peakBytes": peak}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
