"""Makes blocks.json: random quantised blocks, and what the reference makes of them (as f32 bits).

Needs numpy and gguf (llama.cpp's Python package); the project itself never does.
Usage: python blocks.py > blocks.json
"""

import json

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

# Bytes per block, and the offsets of its f16 scales.
LAYOUT = {
    "Q4_0": (18, [0]),
    "Q4_1": (20, [0, 2]),
    "Q5_0": (22, [0]),
    "Q5_1": (24, [0, 2]),
    "Q8_0": (34, [0]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}

random = np.random.default_rng(0)
cases = []
for name, (size, scales) in LAYOUT.items():
    blocks = random.integers(0, 256, (2, size), dtype=np.uint8)
    for at in scales:
        scale = random.normal(0, 0.1, 2).astype(np.float16)
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(2, 2)
    values = dequantize(blocks.reshape(-1), Type[name]).astype(np.float32)
    cases.append(dict(
        id=int(Type[name]), name=name, bytes=blocks.reshape(-1).tolist(),
        bits=values.reshape(-1).view(np.uint32).tolist()))
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
