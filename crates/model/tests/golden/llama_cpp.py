"""Compares the logits of written GGUF files with those of llama.cpp.

Needs llama-cpp-python 0.3.36 and numpy; the project itself never does. Usage:

    mkdir /tmp/gguf
    TIGHTROPE_GGUF_FOLDER=/tmp/gguf cargo test --release --workspace --test gguf_written
    python llama_cpp.py /tmp/gguf
"""

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

llama_cpp.llama_log_set(llama_cpp.llama_log_callback(lambda *_: None), None)
llama_cpp.llama_backend_init()
for file in sorted(Path(sys.argv[1]).glob("*.gguf")):
    expected = json.loads(file.with_suffix(".json").read_text())
    ids = expected["ids"]
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), params)
    if not model:
        print(f"{file.stem}: llama.cpp refuses the file")
        continue
    context = llama_cpp.llama_context_default_params()
    context.n_ctx, context.n_batch, context.n_ubatch = 64, 64, 64
    context.type_k = context.type_v = 0  # f32
    context.flash_attn_type = 0
    ctx = llama_cpp.llama_init_from_model(model, context)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert llama_cpp.llama_decode(ctx, batch) == 0
    own = np.array(expected["logits"]).reshape(len(ids), -1)
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), shape=(own.shape[1],)) for i in range(len(ids))]
    other = np.array(rows, dtype=np.float64)
    error = np.abs(own - other).max() / np.abs(own).max()
    print(f"{file.stem}: largest difference {error:.1e} of the largest logit")
    llama_cpp.llama_free(ctx)
    llama_cpp.llama_model_free(model)
