# Rewrites the safetensors files of a folder as PyTorch saves them: official names, nested state dicts, numbers beside them.
import json
import os
import struct
import sys

import torch

source, target = sys.argv[1:]


def tensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
        header[key] = torch.tensor(values).reshape(entry["shape"])
    return header, metadata


for name in os.listdir(source):
    if name.endswith(".txt"):
        with open(os.path.join(source, name)) as file, open(os.path.join(target, name), "w") as copy:
            copy.write(file.read())
        continue
    state, metadata = tensors(os.path.join(source, name))
    saved = {key: int(value) for key, value in metadata.items()}
    for part in ("state_dict.", "state_dict_unet.", "state_dict_vae."):
        inner = {key[len(part):]: value for key, value in state.items() if key.startswith(part)}
        if inner:
            saved[part[:-1]] = inner
    if name.startswith("v2-1"):
        saved = {"state_dict": state}
    torch.save(saved or state, os.path.join(target, name))
