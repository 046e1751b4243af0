"""DiffBIR's first stage and the image tower of ViT-H/14 in PyTorch, as networks.py has the others."""

import torch
from torch import nn
from torch.nn import functional as F


class WindowAttention(nn.Module):
    """Attention within windows of 8 x 8 tokens, with a bias for each relative position."""

    def __init__(self, channels, heads, window):
        super().__init__()
        self.heads = heads
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("index", offset[0] * (2 * window - 1) + offset[1])

    def forward(self, x, mask):
        windows, length, channels = x.shape
        q, k, v = self.qkv(x).view(windows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.bias[self.index.flatten()].view(length, length, -1).permute(2, 0, 1)
        if mask is not None:
            scores = scores + mask[:, None]
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, length, channels))


def windows_of(x, window):
    n, height, width, channels = x.shape
    x = x.view(n, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


class SwinBlock(nn.Module):
    def __init__(self, channels, heads, window, shift, size):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        mask = None
        if shift:
            part = torch.zeros(size).index_fill(0, torch.arange(size - window, size), 1)
            part = part.index_fill(0, torch.arange(size - shift, size), 2)
            regions = windows_of((3 * part[:, None] + part).view(1, size, size, 1), window).squeeze(-1)
            mask = (regions[:, None] != regions[:, :, None]) * -100.0
        self.register_buffer("mask", mask)

    def forward(self, x):
        n, height, width, channels = x.shape
        h = self.norm1(x)
        if self.shift:
            h = h.roll((-self.shift, -self.shift), (1, 2))
        h = self.attention(windows_of(h, self.window), self.mask)
        h = h.view(n, height // self.window, width // self.window, self.window, self.window, channels)
        h = h.transpose(2, 3).reshape(x.shape)
        if self.shift:
            h = h.roll((self.shift, self.shift), (1, 2))
        x = x + h
        return x + self.mlp(self.norm2(x))


class Group(nn.Module):
    def __init__(self, channels, depth, heads, window, size):
        super().__init__()
        shifts = [window // 2 * (i % 2) for i in range(depth)]
        self.blocks = nn.Sequential(*(SwinBlock(channels, heads, window, shift, size) for shift in shifts))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(self.blocks(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """DiffBIR's first stage, for pictures of 512 x 512: 8 x 8 pixels are a token."""

    def __init__(self, channels=180, groups=8, depth=6, heads=6, window=8, features=64):
        super().__init__()

        def conv3(inputs, outputs):
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        self.first = conv3(3 * 64, channels)
        self.enter, self.leave = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.groups = nn.Sequential(*(Group(channels, depth, heads, window, 64) for _ in range(groups)))
        self.body = conv3(channels, channels)
        self.before = conv3(channels, features)
        self.up = nn.ModuleList(conv3(features, features) for _ in range(3))
        self.last = nn.Sequential(conv3(features, features), nn.LeakyReLU(0.2, inplace=True), conv3(features, 3))

    def forward(self, image):
        shallow = self.first(F.pixel_unshuffle(image, 8))
        h = self.leave(self.groups(self.enter(shallow.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        h = F.leaky_relu(self.before(shallow + self.body(h)), inplace=True)
        for conv in self.up:
            h = F.leaky_relu(conv(F.interpolate(h, scale_factor=2, mode="nearest")), 0.2, inplace=True)
        return self.last(h)


class ResidualAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """The image tower of ViT-H/14, and HPS's score: the cosine to a text's feature."""

    def __init__(self, width=1280, layers=32, heads=16, size=224, patch=14, features=1024):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width) * width**-0.5)
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.enter, self.leave = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(ResidualAttention(width, heads) for _ in range(layers)))
        self.project = nn.Linear(width, features, bias=False)
        self.register_buffer("text", F.normalize(torch.randn(features), dim=0))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(images), -1, -1), tokens], 1) + self.positions
        return F.normalize(self.project(self.leave(self.blocks(self.enter(x))[:, 0])), dim=-1) @ self.text
