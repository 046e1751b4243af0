# Makes the checkpoints that test/weights/torch.test.ts reads, in the folder that it is given. The expected values are
# formulas, which the test knows too: tensor k holds k + i / 8 for its flat row-major index i.
import collections
import os
import sys

import torch

folder = sys.argv[1]


def numbers(k, shape, dtype=torch.float32):
    count = int(torch.Size(shape).numel())
    return (torch.arange(count, dtype=torch.float64) / 8 + k).to(dtype).reshape(shape)


def save(name, value, **options):
    torch.save(value, os.path.join(folder, name), **options)


base = numbers(5, [4, 6])
tensors = collections.OrderedDict(
    f32=numbers(0, [2, 3]),
    f64=numbers(1, [3], torch.float64),
    f16=numbers(2, [2, 2], torch.float16),
    bf16=numbers(3, [5], torch.bfloat16),
    i64=torch.arange(4),
    i32=torch.arange(3, dtype=torch.int32),
    u8=torch.arange(7, dtype=torch.uint8),
    bool=torch.tensor([True, False]),
    scalar=torch.tensor(4.5),
    empty=torch.zeros(0, 3),
    base=base,
    transposed=base.t(),
    columns=base[1:3, ::2],
    row=base[2],
    repeated=numbers(6, [1, 3]).expand(2, 3),
    parameter=torch.nn.Parameter(numbers(7, [2])),
)
save("zip.pth", tensors)
save("zip_protocol4.pth", tensors, pickle_protocol=4)
save("stream.pth", tensors, _use_new_zipfile_serialization=False)

linear = torch.nn.Linear(2, 1)
linear.weight.data = numbers(0, [1, 2])
linear.bias.data = numbers(1, [1])
state = linear.state_dict()
save("lightning.ckpt", {"epoch": 3, "state_dict": torch.nn.DataParallel(linear).state_dict(), "optimizer_states": [state]})
save("esrgan.pth", {"params": {"w": numbers(8, [1])}, "params_ema": state})
save(
    "osediff.pkl",
    {
        "unet_lora_encoder_modules": ["conv_in", "down_blocks.0"],
        "rank_unet": 4,
        "state_dict_unet": {"conv_in.lora_A.default_encoder.weight": numbers(2, [4, 2, 1, 1])},
        "state_dict_vae": {"quant_conv.lora_A.weight": numbers(3, [2])},
    },
)
save("system.pth", {"w": numbers(0, [1]), "f": os.system})
script = torch.jit.script(linear)
script.save(os.path.join(folder, "script.pt"))
try:
    import numpy

    save("numpy.pt", {"state_dict": state, "score": numpy.float64(0.5), "rng": numpy.arange(3)})
except ImportError:
    pass
