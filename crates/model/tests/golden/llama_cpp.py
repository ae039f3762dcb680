"""Compares written GGUF files with llama.cpp.

Needs llama-cpp-py-sync 0.11739 (llama.cpp b11739, built) and numpy; the project itself never does.

Every family, by the logits of the golden cases:

    mkdir /tmp/gguf
    TIGHTROPE_GGUF_FOLDER=/tmp/gguf cargo test --release --workspace --test gguf_written
    python llama_cpp.py families /tmp/gguf

A real model, by tokens, greedy answers and loss; `--lora` adds an adapter:

    python llama_cpp.py answer FILE.gguf "A question?" [--lora ADAPTER.gguf]
    python llama_cpp.py loss FILE.gguf texts.jsonl [--lora ADAPTER.gguf]
    python llama_cpp.py quantize F32.gguf OUT.gguf 15    # llama.cpp's own Q4_K_M
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

ffi, lib = get_ffi(), get_lib()


@ffi.callback("void(enum ggml_log_level, const char *, void *)")
def quiet(level, text, _):
    if level == 4:
        sys.stderr.write(ffi.string(text).decode(errors="replace"))


lib.llama_log_set(quiet, ffi.NULL)
lib.llama_backend_init()


class Model:
    """A model with everything in f32 that can be."""

    def __init__(self, path, lora=None, context=1024):
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise ValueError("llama.cpp refuses the file")
        self.vocab = lib.llama_model_get_vocab(self.model)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.type_k = params.type_v = lib.GGML_TYPE_F32
        params.flash_attn_type = 0
        params.swa_full = True
        params.n_threads = params.n_threads_batch = 1
        self.context = lib.llama_init_from_model(self.model, params)
        if lora:
            adapter = lib.llama_adapter_lora_init(self.model, str(lora).encode())
            if not adapter:
                raise ValueError("llama.cpp refuses the adapter")
            adapters, scales = ffi.new("struct llama_adapter_lora *[1]", [adapter]), ffi.new("float[1]", [1.0])
            assert lib.llama_set_adapters_lora(self.context, adapters, 1, scales) == 0

    def tokens(self, text, special=True):
        data = text.encode()
        ids = ffi.new("llama_token[]", len(data) + 16)
        count = lib.llama_tokenize(self.vocab, data, len(data), ids, len(data) + 16, special, True)
        return list(ids[0:count])

    def logits(self, ids, first=0):
        """One row for each id, of which the first has this position: 0 begins a text."""
        if first == 0:
            lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        batch = lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + i, 1, 1
            batch.seq_id[i][0] = 0
        assert lib.llama_decode(self.context, batch) == 0
        size = lib.llama_vocab_n_tokens(self.vocab)
        rows = [np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(self.context, i), 4 * size), dtype=np.float32).copy()
                for i in range(len(ids))]
        lib.llama_batch_free(batch)
        return np.array(rows, dtype=np.float64)


def families(folder):
    for file in sorted(Path(folder).glob("*.gguf")):
        expected = json.loads(file.with_suffix(".json").read_text())
        try:
            own = np.array(expected["logits"]).reshape(len(expected["ids"]), -1)
            other = Model(file, context=64).logits(expected["ids"])
            error = np.abs(own - other).max() / np.abs(own).max()
            print(f"{file.stem}: largest difference {error:.1e} of the largest logit")
        except (ValueError, AssertionError) as problem:
            print(f"{file.stem}: {problem}")


CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")


def answer(path, question, lora, most=64):
    model = Model(path, lora)
    ids = model.tokens(CHAT.format(question))
    begin = len(ids)
    done = 0
    for _ in range(most):
        logits, done = model.logits(ids[done:], done), len(ids)
        ids.append(int(logits[-1].argmax()))
        if lib.llama_vocab_is_eog(model.vocab, ids[-1]):
            ids.pop()
            break
    print(json.dumps({"prompt_tokens": begin, "tokens": ids[begin:]}))


def loss(path, texts, lora):
    model, total, count = Model(path, lora, context=2048), 0.0, 0
    for line in Path(texts).read_text().splitlines():
        ids = model.tokens(json.loads(line)["text"], False)
        logits = model.logits(ids)[:-1]
        largest = logits.max(axis=1)
        norms = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
        total += float((norms - logits[np.arange(len(ids) - 1), ids[1:]]).sum())
        count += len(ids) - 1
    print(f"{Path(path).name}: {count} tokens, loss {total / count:.6f}, perplexity {math.exp(total / count):.4f}")


def quantize(source, target, kind):
    params = ffi.new("llama_model_quantize_params *", lib.llama_model_quantize_default_params())
    params.ftype, params.nthread = int(kind), 2
    assert lib.llama_model_quantize(source.encode(), target.encode(), params) == 0


arguments = sys.argv[1:]
lora = None
if "--lora" in arguments:
    at = arguments.index("--lora")
    lora = arguments[at + 1]
    del arguments[at:at + 2]
match arguments:
    case ["families", folder]:
        families(folder)
    case ["answer", path, question]:
        answer(path, question, lora)
    case ["loss", path, texts]:
        loss(path, texts, lora)
    case ["quantize", source, target, kind]:
        quantize(source, target, kind)
    case _:
        sys.exit(__doc__)
