"""Stable Diffusion 2.1's UNet and autoencoder, and DiffBIR's ControlNet, in PyTorch, for their speed: the published layers
in the published order, with random weights. The script that imports this counts their parameters."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def attend(q, k, v, heads):
    """[N, L, heads * D] each; the products and the softmax of the original code."""
    n, length, channels = q.shape
    width = channels // heads
    q, k, v = (t.view(n, -1, heads, width).transpose(1, 2).reshape(n * heads, -1, width) for t in (q, k, v))
    scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=width**-0.5)
    mixed = torch.bmm(scores.softmax(-1), v)
    return mixed.view(n, heads, length, -1).transpose(1, 2).reshape(n, length, channels)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the UNet's has a timestep (`embedding` features) added between them."""

    def __init__(self, inputs, outputs, embedding=0, eps=1e-6):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs, eps), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs, eps), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.shift = nn.Linear(embedding, outputs) if embedding else None

    def forward(self, x, emb=None):
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        if self.shift:
            h = h + self.shift(emb)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h), inplace=True))


class CrossAttention(nn.Module):
    def __init__(self, channels, context):
        super().__init__()
        self.heads = channels // 64
        self.q = nn.Linear(channels, channels, bias=False)
        self.k, self.v = (nn.Linear(context, channels, bias=False) for _ in range(2))
        self.out = nn.Linear(channels, channels)

    def forward(self, x, context):
        return self.out(attend(self.q(x), self.k(context), self.v(context), self.heads))


class Transformer(nn.Module):
    def __init__(self, channels, context=1024):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, 1e-6)
        self.enter, self.leave = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.self_attention = CrossAttention(channels, channels)
        self.cross_attention = CrossAttention(channels, context)
        self.widen, self.narrow = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x, context):
        n, channels, height, width = x.shape
        h = self.enter(self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, channels))
        normed = self.norm1(h)
        h = h + self.self_attention(normed, normed)
        h = h + self.cross_attention(self.norm2(h), context)
        a, b = self.widen(self.norm3(h)).chunk(2, -1)
        h = h + self.narrow(a * F.gelu(b))
        return x + self.leave(h).reshape(n, height, width, channels).permute(0, 3, 1, 2)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    def __init__(self, base=320, multiples=(1, 2, 4, 4), blocks=2):
        super().__init__()
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base), nn.SiLU())
        last = len(multiples) - 1
        self.down = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, base, 3, padding=1)])])
        widths, ch = [base], base

        def stage(inputs, outputs, level):
            """The lowest level has no transformers."""
            pieces = [ResBlock(inputs, outputs, 4 * base, 1e-5)]
            return nn.ModuleList(pieces + ([Transformer(outputs)] if level < last else []))

        for level, multiple in enumerate(multiples):
            for _ in range(blocks):
                self.down.append(stage(ch, multiple * base, level))
                ch = multiple * base
                widths.append(ch)
            if level < last:
                self.down.append(nn.ModuleList([nn.Conv2d(ch, ch, 3, stride=2, padding=1)]))
                widths.append(ch)
        self.widths = [*widths, ch]
        first, second = (ResBlock(ch, ch, 4 * base, 1e-5) for _ in range(2))
        self.middle = nn.ModuleList([first, Transformer(ch), second])
        self.up = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(blocks + 1):
                pieces = stage(ch + widths.pop(), multiples[level] * base, level)
                ch = multiples[level] * base
                self.up.append(pieces)
                if level and i == blocks:
                    pieces.append(Upsample(ch))
        self.out = nn.Sequential(nn.GroupNorm(32, base), nn.SiLU(inplace=True), nn.Conv2d(base, 4, 3, padding=1))

    def contract(self, x, timesteps, context):
        """What each stage of the contracting half gives, then the middle; and how a stage is run."""
        half = self.base // 2
        angles = timesteps[:, None] * torch.exp(torch.arange(half, device=x.device) * (-math.log(10000) / half))[None]
        emb = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype))

        def run(pieces, h):
            for piece in pieces:
                extra = (emb,) if isinstance(piece, ResBlock) else (context,) if isinstance(piece, Transformer) else ()
                h = piece(h, *extra)
            return h

        found = []
        for pieces in [*self.down, self.middle]:
            x = run(pieces, x)
            found.append(x)
        return found, run

    def forward(self, x, timesteps, context, control=()):
        skips, run = self.contract(x, timesteps, context)
        for i, feature in enumerate(control):
            skips[i] = skips[i] + feature
        x = skips.pop()
        for pieces in self.up:
            x = run(pieces, torch.cat([x, skips.pop()], 1))
        return self.out(x)


class ControlNet(UNet):
    """The contracting half and the middle, which see a hint besides, and a 1x1 convolution behind each of their results."""

    def __init__(self):
        super().__init__()
        del self.up, self.out
        self.down[0][0] = nn.Conv2d(8, self.base, 3, padding=1)
        self.leave = nn.ModuleList(nn.Conv2d(width, width, 1) for width in self.widths)

    def forward(self, x, hint, timesteps, context):
        found, _ = self.contract(torch.cat([x, hint], 1), timesteps, context)
        return [convolution(feature) for convolution, feature in zip(self.leave, found)]


class Controlled(nn.Module):
    """A step of DiffBIR's second stage."""

    def __init__(self):
        super().__init__()
        self.controlnet, self.unet = ControlNet(), UNet()

    def forward(self, x, hint, timesteps, context):
        return self.unet(x, timesteps, context, self.controlnet(x, hint, timesteps, context))


class PixelAttention(nn.Module):
    """Attention of one head between all pixels."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        normed = self.norm(x)
        q, k, v = (f(normed).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = attend(*(t.contiguous() for t in (q, k, v)), 1)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves the size; one zero past the right and bottom edges only."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Vae(nn.Module):
    def __init__(self, base=128, multiples=(1, 2, 4, 4), blocks=2):
        super().__init__()
        widths = [base * multiple for multiple in multiples]

        def ends(ch, outputs):
            return [nn.GroupNorm(32, ch, 1e-6), nn.SiLU(inplace=True), nn.Conv2d(ch, outputs, 3, padding=1)]

        def middle(ch):
            return [ResBlock(ch, ch), PixelAttention(ch), ResBlock(ch, ch)]

        down, ch = [nn.Conv2d(3, base, 3, padding=1)], base
        for level, width in enumerate(widths):
            for _ in range(blocks):
                down.append(ResBlock(ch, width))
                ch = width
            if level < len(widths) - 1:
                down.append(Downsample(ch))
        self.encoder = nn.Sequential(*down, *middle(ch), *ends(ch, 8), nn.Conv2d(8, 8, 1))
        up = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, ch, 3, padding=1), *middle(ch)]
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                up.append(ResBlock(ch, width))
                ch = width
            if level:
                up.append(Upsample(ch))
        self.decoder = nn.Sequential(*up, *ends(ch, 3))
