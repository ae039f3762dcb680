"""Writes frequencies.json: inverse frequencies and attention factors as Transformers computes them.

Run with transformers and torch installed: python frequencies.py > frequencies.json
"""
import json

import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaRotaryEmbedding
from transformers.models.phi.modeling_phi import PhiConfig, PhiRotaryEmbedding
from transformers.models.phi3.configuration_phi3 import Phi3Config


def ramp(first, last, count):
    return [round(first + (last - first) * i / (count - 1), 4) for i in range(count)]


def head(dim, positions, **rest):
    return {"hidden_size": 4 * dim, "num_attention_heads": 4, "head_dim": dim, "max_position_embeddings": positions, **rest}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
CASES = [
    # Family, config.json, lengths, layer type.
    ("llama", head(64, 2048, rope_theta=10000.0), [0], None),
    ("llama", head(128, 32768, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), [0], None),
    ("llama", head(16, 512, rope_theta=100000, rope_scaling=None), [0], None),
    ("phi", head(80, 2048, rope_theta=10000.0, partial_rotary_factor=0.4), [0], None),
    ("phi", head(64, 2048, rope_parameters={"rope_theta": 5e5, "partial_rotary_factor": 0.5, "rope_type": "default"}), [0], None),
    ("llama", head(64, 4096, rope_theta=10000.0, rope_scaling={"type": "linear", "factor": 4.0}), [0], None),
    ("llama", head(128, 4096, rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 5e5}), [0], None),
    ("llama", head(32, 4096, rope_theta=10000.0, partial_rotary_factor=0.5, rope_scaling={"rope_type": "linear", "factor": 8}), [0], None),
    ("llama", head(64, 2048, rope_theta=10000.0, rope_scaling={"type": "dynamic", "factor": 2.0}), [0, 2048, 2049, 8192], None),
    ("llama", head(128, 4096, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 5e5}), [1, 5000], None),
    ("llama", head(32, 512, rope_theta=10000.0, partial_rotary_factor=0.5, rope_scaling={"rope_type": "dynamic", "factor": 1.5}), [600], None),
    ("llama", head(64, 131072, rope_theta=500000.0, rope_scaling=LLAMA3), [0], None),
    ("llama", head(128, 131072, rope_parameters={**LLAMA3, "factor": 32.0, "rope_theta": 500000.0}), [0], None),
    ("llama", head(32, 4096, rope_theta=10000.0, rope_scaling={**LLAMA3, "low_freq_factor": 2.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 512}), [0], None),
    ("llama", head(128, 131072, rope_theta=1000000.0, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}), [0], None),
    ("llama", head(64, 163840, rope_theta=10000, rope_scaling={"rope_type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.8, "original_max_position_embeddings": 4096}), [0], None),
    ("llama", head(64, 131072, rope_parameters={"rope_type": "yarn", "rope_theta": 150000, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096}), [0], None),
    ("llama", head(48, 8192, rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "attention_factor": 1.25, "beta_fast": 16, "beta_slow": 2, "original_max_position_embeddings": 4096}), [0], None),
    ("llama", head(16, 64, rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 1.0, "original_max_position_embeddings": 64}), [0], None),
    ("llama", head(16, 1024, rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0, "beta_fast": 4, "beta_slow": 4, "truncate": False, "original_max_position_embeddings": 512}), [0], None),
    ("phi3", head(96, 131072, rope_theta=10000.0, original_max_position_embeddings=4096, rope_scaling={"type": "longrope", "short_factor": ramp(1, 1.2, 48), "long_factor": ramp(1.03, 64, 48)}), [0, 4096, 4097], None),
    ("phi3", head(64, 8192, rope_theta=10000.0, original_max_position_embeddings=8192, rope_scaling={"rope_type": "longrope", "short_factor": ramp(1, 1, 32), "long_factor": ramp(1, 9, 32)}), [10, 9000], None),
    ("llama", head(32, 8192, rope_parameters={"rope_type": "longrope", "rope_theta": 5e4, "factor": 4.0, "attention_factor": 1.19, "short_factor": ramp(1, 2, 16), "long_factor": ramp(2, 20, 16), "original_max_position_embeddings": 2048}), [2048, 2049], None),
    ("gemma3", head(32, 4096, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}), [0], "full_attention"),
    ("gemma3", head(32, 4096, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}), [0], "sliding_attention"),
    ("gemma3", head(32, 4096, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], rope_theta=1000000.0, rope_local_base_freq=20000.0, rope_scaling={"rope_type": "linear", "factor": 8.0}), [0], "full_attention"),
    ("gemma3", head(32, 4096, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"], rope_theta=1000000.0, rope_local_base_freq=20000.0, rope_scaling={"rope_type": "linear", "factor": 8.0}), [0], "sliding_attention"),
]
CONFIGS = {"llama": LlamaConfig, "phi": PhiConfig, "phi3": Phi3Config, "gemma3": Gemma3TextConfig}

cases = []
for family, settings, lengths, layer_type in CASES:
    # The constructors modify their arguments.
    config = CONFIGS[family](**json.loads(json.dumps(settings)))
    if family in ("phi", "phi3"):
        config.head_dim = settings["head_dim"]
    parameters = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    kind = parameters["rope_type"]
    rows, factor = {}, None
    for length in lengths:
        if kind != "default":
            keys = {"layer_type": layer_type} if layer_type else {}
            row, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length, **keys)
        elif family == "phi":
            row, factor = PhiRotaryEmbedding.compute_default_rope_parameters(config, device="cpu")
        elif family == "gemma3":
            from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
            row, factor = Gemma3RotaryEmbedding.compute_default_rope_parameters(config, layer_type=layer_type)
        else:
            row, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        assert row.dtype == torch.float32
        rows[str(length)] = row.tolist()
    cases.append({"kind": kind, "config": settings, "layer_type": layer_type, "attention_factor": factor, "inverse_frequencies": rows})

print('{"reference": "transformers %s, torch %s", "cases": [' % (transformers.__version__, torch.__version__))
print(",\n".join(json.dumps(case) for case in cases))
print("]}")
