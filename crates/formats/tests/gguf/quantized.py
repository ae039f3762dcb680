"""Makes quantized.json: the errors of llama.cpp's own quantiser on fixed numbers.

Needs numpy, gguf 0.19.0 and llama-cpp-py-sync 0.11739 (llama.cpp b11739, built); the project itself
never does.
Usage: python quantized.py > quantized.json
"""

import ctypes
import json
from pathlib import Path

import llama_cpp_py_sync
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

ggml = ctypes.CDLL(str(Path(llama_cpp_py_sync.__file__).with_name("libggml-base.so.0")))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]

TYPES = {"Q4_0": 18 / 32, "Q5_0": 22 / 32, "Q5_1": 24 / 32, "Q8_0": 34 / 32,
         "Q4_K": 144 / 256, "Q5_K": 176 / 256, "Q6_K": 210 / 256}
CASES = ["normal", "heavy", "positive", "outlier", "sparse"]


def divided(a, b):
    """Towards zero, as in Rust."""
    return abs(a) // b * (1 if a >= 0 else -1)


def numbers(case):
    state = len(case)
    values = []
    for index in range(4096):
        total = -131_070
        for _ in range(4):
            state = (state * 6_364_136_223_846_793_005 + 1) % 2**64
            total += state >> 48
        values.append(float({
            "normal": total * 2.0**-20,
            "heavy": divided(total * total, 65_536) * total * 2.0**-37,
            "positive": (total + 131_070) * 2.0**-20,
            "outlier": total * 2.0 ** (-15 if index % 97 == 0 else -20),
            "sparse": total * 2.0**-20 if total & 3 == 0 else 0.0,
        }[case]))
    return np.array(values, dtype=np.float32)


def weights(name, x):
    if name in ("Q4_K", "Q5_K"):
        parts = x.reshape(-1, 32)
        return (np.sqrt((parts**2).mean(axis=1, keepdims=True)) + np.abs(parts)).reshape(-1)
    return x**2 if name == "Q6_K" else np.ones_like(x)


rows = []
for name, size in TYPES.items():
    for case in CASES:
        x = numbers(case)
        out = np.zeros(int(len(x) * size), dtype=np.uint8)
        ggml.ggml_quantize_chunk(int(Type[name]), x.ctypes.data, out.ctypes.data, 0, 1, len(x), None)
        exact = x.astype(np.float64)
        difference = exact - dequantize(out, Type[name]).astype(np.float64).reshape(-1)
        total = 0.0
        for value in np.abs(exact):  # in order, as in Rust
            total += float(value)
        rows.append(dict(
            id=int(Type[name]), case=case, sum=total,
            weighted=float((weights(name, exact) * difference**2).sum()),
            squared=float((difference**2).sum())))
print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
