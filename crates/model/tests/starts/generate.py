"""Makes cases of adapters that start from the weights: what PEFT computes in f64 (after PEFT's
decomposition in f32) on the tiny models of ../golden.

Needs torch, transformers 5, peft (0.21 was used) and safetensors; the project itself never does.
Usage: python generate.py GOLDEN FOLDER

`trajectory.json` has loss and norm of the gradient of each of five steps, `expected.safetensors` the
logits after them. Signs of singular vectors are free, so single factors are not compared.
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

STEPS = 5
LEARNING_RATE, DECAY, LARGEST = 1e-3, 0.1, 1.0

CASES = {
    "pissa": ("llama_linear", dict(
        target_modules="all-linear", r=3, lora_alpha=8, init_lora_weights="pissa")),
    "pissa_rslora": ("granite", dict(
        target_modules=["q_proj", "down_proj", "gate_proj"], r=4, lora_alpha=6, use_rslora=True,
        init_lora_weights="pissa")),
    "olora": ("qwen2_windows", dict(
        target_modules=["q_proj", "k_proj", "down_proj", "up_proj"], r=3, lora_alpha=5,
        rank_pattern={"up_proj": 5}, init_lora_weights="olora")),
}


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


def make(golden, folder, settings):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (golden / "documents.jsonl").read_text().splitlines()]
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])
    model = AutoModelForCausalLM.from_pretrained(
        golden, attn_implementation="eager", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).double()
    values = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        values, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=DECAY)
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = run(model, rows, trained, True)
        norm = torch.nn.utils.clip_grad_norm_(values, LARGEST).item()
        optimizer.step()
        steps.append(dict(loss=loss, grad_norm=norm))
    _, logits = run(model, rows, trained, False)
    save_file({"logits_after": logits.float()}, folder / "expected.safetensors")
    (folder / "trajectory.json").write_text(json.dumps(steps, indent=1) + "\n")


if __name__ == "__main__":
    for index, (name, (golden, settings)) in enumerate(CASES.items()):
        torch.manual_seed(index)
        make(pathlib.Path(sys.argv[1]) / golden, pathlib.Path(sys.argv[2]) / name, settings)
        print(name)
