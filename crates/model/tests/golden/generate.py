"""Makes golden cases: tiny random models, and what Transformers, PEFT and PyTorch compute in f64.

Needs torch, transformers 5, peft and safetensors; the project itself never does.
Usage: python generate.py FOLDER [CASE ...]
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    Qwen2Config,
    Qwen3Config,
    SeedOssConfig,
    SmolLM3Config,
)

BASE = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.2,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)


def rope(**parameters):
    return dict(rope_parameters=dict(rope_theta=10000.0, **parameters))


CASES = {
    "gemma2": (Gemma2Config, dict(
        num_hidden_layers=3, head_dim=10, sliding_window=6, query_pre_attn_scalar=24,
        attn_logit_softcapping=5.0, final_logit_softcapping=8.0, tie_word_embeddings=True)),
    "gemma_one_kv_head": (GemmaConfig, dict(
        head_dim=16, num_key_value_heads=1, tie_word_embeddings=True)),
    "llama_biases": (LlamaConfig, dict(
        attention_bias=True, mlp_bias=True, num_key_value_heads=4)),
    "llama_dynamic": (LlamaConfig, dict(
        max_position_embeddings=16, **rope(rope_type="dynamic", factor=2.0))),
    "llama_linear": (LlamaConfig, dict(**rope(rope_type="linear", factor=4.0))),
    "llama_longrope": (LlamaConfig, dict(
        max_position_embeddings=96, **rope(
            rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
            short_factor=[1.0 + 0.05 * i for i in range(4)],
            long_factor=[2.0 + 0.3 * i for i in range(4)]))),
    "llama_yarn": (LlamaConfig, dict(
        head_dim=12, **rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32))),
    "mistral_head_dim": (MistralConfig, dict(head_dim=12, sliding_window=9)),
    "qwen2_tied": (Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen2_windows": (Qwen2Config, dict(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "qwen3_window": (Qwen3Config, dict(
        num_hidden_layers=3, head_dim=14, attention_bias=True, use_sliding_window=True,
        sliding_window=7, max_window_layers=2)),
    "smollm3": (SmolLM3Config, dict(
        num_hidden_layers=3, tie_word_embeddings=True, no_rope_layer_interval=3)),
    "smollm3_window": (SmolLM3Config, dict(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=6,
        no_rope_layers=[1, 0, 1])),
    "granite": (GraniteConfig, dict(
        num_hidden_layers=3, tie_word_embeddings=True, embedding_multiplier=12.0,
        attention_multiplier=0.2, residual_multiplier=0.22, logits_scaling=8.0)),
    "gemma3": (Gemma3TextConfig, dict(
        num_hidden_layers=3, head_dim=10, sliding_window=6, query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0)),
        tie_word_embeddings=True)),
    "olmo2": (Olmo2Config, dict(num_hidden_layers=3)),
    "olmo3": (Olmo3Config, dict(
        num_hidden_layers=4, sliding_window=7, num_key_value_heads=4,
        rope_parameters=dict(
            full_attention=dict(
                rope_type="yarn", factor=4.0, rope_theta=500000.0,
                original_max_position_embeddings=64),
            sliding_attention=dict(rope_type="default", rope_theta=500000.0)))),
    "exaone4": (Exaone4Config, dict(
        num_hidden_layers=4, sliding_window=6, sliding_window_pattern="LLLG",
        layer_types=["sliding_attention"] * 3 + ["full_attention"])),
    "seed_oss": (SeedOssConfig, dict(
        head_dim=12, attention_bias=True, attention_dropout=0.0, residual_dropout=0.0)),
    "hyperclovax": (HyperCLOVAXConfig, dict(
        num_hidden_layers=3, embedding_multiplier=10.0, attention_multiplier=0.2,
        logits_scaling=0.125)),
}


def documents():
    generator = torch.Generator().manual_seed(3)
    rows = []
    for length in [1, 19, 5, 2, 33, 9, 3]:
        ids = torch.randint(3, 96, (length,), generator=generator).tolist()
        labels = list(ids)
        if length > 4:
            labels[: length // 3] = [-100] * (length // 3)
        if length == 9:
            labels = [-100] * 9
        if length == 19:
            labels[12] = -100
        rows.append(dict(input_ids=ids, labels=labels))
    return rows


def run(model, rows, trained, backward):
    loss, logits = 0.0, []
    for row in rows:
        output = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        logits.append(output.detach())
        labels = torch.tensor(row["labels"])[1:]
        if (labels != -100).any():
            term = torch.nn.functional.cross_entropy(
                output[:-1], labels, ignore_index=-100, reduction="sum") / trained
            loss += term.item()
            if backward:
                term.backward()
    return loss, torch.cat(logits)


def expected(model, rows, trained):
    loss, logits = run(model, rows, trained, True)
    tensors = {"logits": logits.float(), "loss": torch.tensor([loss], dtype=torch.float64)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = "grad." + name.replace(".default", "")
            tensors[name] = parameter.grad.float().contiguous()
    return tensors


HYPERPARAMETERS = dict(
    learning_rate=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, max_grad_norm=1.0)


def trajectory(model, rows, trained):
    h = HYPERPARAMETERS
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [dict(params=[p for p in parameters if p.ndim >= 2], weight_decay=h["weight_decay"]),
         dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0)],
        lr=h["learning_rate"], betas=(h["beta1"], h["beta2"]), eps=h["eps"])
    steps = []
    for _ in range(10):
        optimizer.zero_grad()
        loss, _ = run(model, rows, trained, True)
        norm = torch.nn.utils.clip_grad_norm_(parameters, h["max_grad_norm"]).item()
        optimizer.step()
        steps.append(dict(loss=loss, grad_norm=norm))
    return steps


def load(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32)


def make(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    rows = documents()
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])

    model = load(folder).double()
    save_file(expected(model, rows, trained), folder / "expected.safetensors")
    full = trajectory(model, rows, trained)

    lora = LoraConfig(r=3, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load(folder), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    model = model.double()
    save_file(expected(model, rows, trained), folder / "expected_lora.safetensors")
    steps = dict(
        hyperparameters=dict(HYPERPARAMETERS, label_tokens=trained),
        full=full, lora=trajectory(model, rows, trained))
    (folder / "trajectory.json").write_text(json.dumps(steps, indent=1) + "\n")


if __name__ == "__main__":
    for index, (name, (config, changes)) in enumerate(CASES.items()):
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        torch.manual_seed(index)
        make(pathlib.Path(sys.argv[1]) / name, config(**{**BASE, **changes}))
        print(name)
