"""Makes cases of adapters: what PEFT computes in f64 on the tiny models of ../golden.

Needs torch, transformers 5, peft (0.21 was used) and safetensors; the project itself never does.
Usage: python generate.py GOLDEN FOLDER [CASE ...]

Each case has the adapter that PEFT saved at its start (`adapter/`, with values far from zero),
`expected.safetensors` (logits, loss, gradients, and the trained values after five steps), and
`trajectory.json` (loss and norm of the gradient of each step).
"""

import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

STEPS = 5
LEARNING_RATE, DECAY, LARGEST = 1e-3, 0.1, 1.0

# Name: the model of ../golden, and the settings of the adapter.
CASES = {
    "patterns": ("llama_linear", dict(
        target_modules=r".*\.(q_proj|v_proj|up_proj|down_proj)", r=3, lora_alpha=8,
        exclude_modules=["layers.0.mlp.up_proj"],
        rank_pattern={r"layers\.1\..*_proj": 2, "q_proj": 5}, alpha_pattern={r"mlp\..*": 3})),
    "layers": ("qwen3_window", dict(
        target_modules=["q_proj", "o_proj", "gate_proj"], layers_to_transform=[0, 2], r=4,
        lora_alpha=6, use_rslora=True, exclude_modules=r".*\.2\..*gate_proj")),
    "bias_all": ("llama_biases", dict(
        target_modules=["q_proj", "down_proj"], bias="all", r=3, lora_alpha=8)),
    "bias_lora_only": ("qwen2_windows", dict(
        target_modules=["q_proj", "v_proj"], bias="lora_only", r=3, lora_alpha=8)),
    "saved": ("llama_yarn", dict(
        target_modules=["q_proj"], layers_to_transform=[1], r=3, lora_alpha=8,
        modules_to_save=["embed_tokens", "lm_head", "norm"])),
    "saved_norms": ("qwen3_window", dict(
        target_modules=["v_proj"], r=2, lora_alpha=4,
        modules_to_save=["layers.1.input_layernorm", "q_norm", "model.norm"])),
    "saved_tied": ("qwen2_tied", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, modules_to_save=["embed_tokens", "lm_head"])),
    "saved_embedding_of_tied": ("gemma2", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, modules_to_save=["embed_tokens"])),
    "saved_head_of_tied": ("granite", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, modules_to_save=["lm_head"])),
    "saved_and_kept_tied": ("qwen2_tied", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, modules_to_save=["embed_tokens"],
        ensure_weight_tying=True)),
    "dora": ("llama_biases", dict(
        target_modules="all-linear", r=3, lora_alpha=8, use_dora=True)),
    "dora_and_more": ("granite", dict(
        target_modules=["q_proj", "down_proj", "gate_proj"], r=4, lora_alpha=6, use_dora=True,
        use_rslora=True, rank_pattern={"down_proj": 2}, modules_to_save=["norm"])),
    "dora_biases": ("qwen2_windows", dict(
        target_modules=["q_proj", "v_proj", "o_proj"], bias="lora_only", r=3, lora_alpha=8,
        use_dora=True)),
    "tokens": ("llama_linear", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, trainable_token_indices=[5, 7, 8, 60])),
    "tokens_of_both": ("llama_yarn", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8,
        trainable_token_indices={"embed_tokens": [40, 2, 3], "lm_head": [95, 1, 2, 0]})),
    "tokens_tied": ("gemma2", dict(
        target_modules=["q_proj"], r=3, lora_alpha=8, trainable_token_indices=[1, 2, 9, 50])),
    "resized": ("llama_linear", dict(
        new_rows=2, target_modules=["q_proj"], r=3, lora_alpha=8,
        trainable_token_indices={"embed_tokens": [5, 96, 97], "lm_head": [96, 97]})),
    "resized_tied": ("qwen2_tied", dict(
        new_rows=2, target_modules=["q_proj"], r=3, lora_alpha=8,
        trainable_token_indices=[97, 3, 96])),
    "resized_saved": ("llama_yarn", dict(
        new_rows=3, target_modules=["q_proj"], r=3, lora_alpha=8,
        modules_to_save=["embed_tokens", "lm_head"])),
    "head": ("llama_linear", dict(
        target_modules=["q_proj", "lm_head"], r=3, lora_alpha=8, alpha_pattern={"lm_head": 5})),
    "embedding": ("llama_yarn", dict(
        target_modules=["v_proj", "embed_tokens"], r=3, lora_alpha=8, use_rslora=True,
        rank_pattern={"embed_tokens": 2})),
    "embedding_and_head": ("llama_biases", dict(
        target_modules=["embed_tokens", "lm_head"], r=4, lora_alpha=6)),
    "embedding_of_tied": ("gemma2", dict(
        target_modules=["q_proj", "embed_tokens"], r=3, lora_alpha=8)),
    "head_of_tied": ("granite", dict(
        target_modules=["q_proj", "lm_head"], r=3, lora_alpha=8)),
    "embedding_and_head_of_tied": ("qwen2_tied", dict(
        target_modules=r".*(embed_tokens|lm_head|q_proj)", r=2, lora_alpha=8)),
    "resized_factors": ("gemma2", dict(
        new_rows=2, target_modules=["lm_head", "embed_tokens"], r=3, lora_alpha=8)),
}


def in_file(name):
    """The name of a trained parameter in the adapter's file."""
    name = name.replace(".modules_to_save.default.", ".").replace(".default", "")
    return name.removesuffix(".weight") if "lora_magnitude_vector" in name else name


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


def load(golden, new_rows=0):
    model = AutoModelForCausalLM.from_pretrained(
        golden, attn_implementation="eager", dtype=torch.float32)
    if new_rows:
        model.resize_token_embeddings(model.config.vocab_size + new_rows, mean_resizing=False)
    return model


def with_new_tokens(rows, first, count):
    """The documents, in which every fifth token is a new one."""
    for row in rows:
        for place in range(1, len(row["input_ids"]), 5):
            token = first + place % count
            row["input_ids"][place] = token
            if row["labels"][place] != -100:
                row["labels"][place] = token
    return rows


def trained_parameters(model):
    return {in_file(n): p for n, p in model.named_parameters() if p.requires_grad}


def make(golden, folder, settings):
    shutil.rmtree(folder, ignore_errors=True)
    rows = [json.loads(line) for line in (golden / "documents.jsonl").read_text().splitlines()]
    new_rows = settings.pop("new_rows", 0)
    if new_rows:
        rows = with_new_tokens(rows, load(golden).config.vocab_size, new_rows)
        folder.mkdir()
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / "documents.jsonl").write_text("".join(lines))
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])
    model = get_peft_model(load(golden, new_rows), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            if "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
            elif "lora_A" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    config = folder / "adapter" / "adapter_config.json"
    text = json.loads(config.read_text())
    text["base_model_name_or_path"] = golden.name
    config.write_text(json.dumps(text, indent=2) + "\n")
    # What PEFT reads from its own files is what is computed on.
    model = PeftModel.from_pretrained(load(golden, new_rows), folder / "adapter", is_trainable=True)
    model = model.double()

    model.train()
    loss, logits = run(model, rows, trained, True)
    tensors = {"logits": logits.float(), "loss": torch.tensor([loss], dtype=torch.float64)}
    parameters = trained_parameters(model)
    for name, parameter in parameters.items():
        tensors["grad." + name] = parameter.grad.float().contiguous()

    values = list(parameters.values())
    optimizer = torch.optim.AdamW(
        [dict(params=[p for p in values if p.ndim >= 2], weight_decay=DECAY),
         dict(params=[p for p in values if p.ndim < 2], weight_decay=0.0)],
        lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = run(model, rows, trained, True)
        norm = torch.nn.utils.clip_grad_norm_(values, LARGEST).item()
        optimizer.step()
        steps.append(dict(loss=loss, grad_norm=norm))
    for name, parameter in parameters.items():
        tensors["after." + name] = parameter.detach().float().contiguous()
    save_file(tensors, folder / "expected.safetensors")
    (folder / "trajectory.json").write_text(json.dumps(steps, indent=1) + "\n")


if __name__ == "__main__":
    for index, (name, (golden, settings)) in enumerate(CASES.items()):
        if len(sys.argv) > 3 and name not in sys.argv[3:]:
            continue
        torch.manual_seed(index)
        target = pathlib.Path(sys.argv[2]) / name
        make(pathlib.Path(sys.argv[1]) / golden, target, settings)
        (target / "model.txt").write_text(golden + "\n")
        print(name)
