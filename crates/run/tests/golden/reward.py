"""Makes the golden cases of reward models: what TRL's RewardTrainer computes in f32.

Sizes, pairs and versions are those of preference.py; every loss, metric, norm and weight is checked
against the formula below, computed in f64. In one pair of the evaluation, an answer ends with the
padding token, before which Transformers scores.
Usage: python reward.py FOLDER (with the folder `preference` beside it)
"""

import json
import pathlib
import sys
import tempfile

import datasets
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from preference import LORA, MODEL, STEPS, TRAINING, check, numbers, read_rows, tokenizer, weights
from safetensors.torch import save_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, LlamaConfig, PrinterCallback
from trl import RewardConfig, RewardTrainer

# Settings, and whether all weights are trained instead of the adapter and the head.
CASES = {
    "reward": (dict(), False),
    "reward_centered": (dict(center_rewards_coefficient=0.3), False),
    "reward_full": (dict(learning_rate=1e-3), True),
}
FORMULA = (
    "mean over pairs of -logsigmoid(c - r) + k (c + r)^2; c, r: score.weight times the features of "
    "the last token that is not the padding token")


def load(folder, full):
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", attn_implementation="eager", dtype=torch.float32)
    if full:
        return model
    return PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)


def write_inputs(folder):
    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_config(
        LlamaConfig(**MODEL, num_labels=1), attn_implementation="eager").float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "model")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)

    model = get_peft_model(load(folder, full=True), LoraConfig(**{**LORA, "task_type": "SEQ_CLS"}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    settings = folder / "adapter" / "adapter_config.json"
    config = json.loads(settings.read_text())
    config.update(
        base_model_name_or_path="../model", target_modules=sorted(config["target_modules"]))
    settings.write_text(json.dumps(config, indent=2) + "\n")

    rows = read_rows(folder / "../preference/eval.jsonl")
    rows[1]["chosen_ids"][-1] = MODEL["pad_token_id"]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def formula(model, rows, coefficient):
    """Loss and metrics, one sequence at a time and without padding."""
    scores = dict(chosen=[], rejected=[])
    for row in rows:
        for side, of_side in scores.items():
            ids = row["prompt_ids"] + row[side + "_ids"]
            last = max(i for i, token in enumerate(ids) if token != MODEL["pad_token_id"])
            # Later tokens change nothing before them.
            of_side.append(model(input_ids=torch.tensor([ids[:last + 1]])).logits[0, 0])
    c, r = (torch.stack(of_side) for of_side in scores.values())
    loss = -logsigmoid(c - r).mean() + coefficient * ((c + r) ** 2).mean()
    return loss, dict(
        rewards_chosen=c.mean(), rewards_rejected=r.mean(), margin=(c - r).mean(),
        accuracy=(c > r).double().mean())


def expect(folder, name, rows, eval_rows):
    settings, full = CASES[name]
    coefficient = settings.get("center_rewards_coefficient", 0.0)
    model = load(folder, full).double().eval()

    def evaluate():
        with torch.no_grad():
            loss, metrics = formula(model, eval_rows, coefficient)
            return numbers(dict(loss=loss, **metrics))

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.get("learning_rate", TRAINING["learning_rate"]),
        betas=(TRAINING["adam_beta1"], TRAINING["adam_beta2"]), eps=TRAINING["adam_epsilon"],
        weight_decay=TRAINING["weight_decay"])
    before, steps = evaluate(), []
    for _ in range(STEPS):
        loss, metrics = formula(model, rows, coefficient)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        optimizer.step()
        steps.append(numbers(dict(loss=loss, **metrics, grad_norm=norm)))
    return dict(
        steps=steps, eval=dict(before=before, after=evaluate()), paper=steps[0]["loss"],
        weights=weights(model, full))


class Reward(RewardTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


def run_trl(folder, name, rows, eval_rows):
    settings, full = CASES[name]
    losses, seen = [], []

    def whole(some):
        return datasets.Dataset.from_list([
            {side + "_ids": row["prompt_ids"] + row[side + "_ids"]
             for side in ("chosen", "rejected")} for row in some])

    with tempfile.TemporaryDirectory() as output:
        config = RewardConfig(
            output_dir=output, report_to=[], logging_steps=1, save_strategy="no", use_cpu=True,
            disable_tqdm=True, disable_dropout=True, max_length=64,
            **{**TRAINING, **settings})
        trainer = Reward(
            model=load(folder, full), args=config, processing_class=tokenizer(),
            train_dataset=whole(rows), eval_dataset=whole(eval_rows))
        trainer.remove_callback(PrinterCallback)
        compute_loss = trainer.compute_loss

        def recorded(model, inputs, *arguments, **keywords):
            loss, outputs = compute_loss(
                model, inputs, *arguments, **{**keywords, "return_outputs": True})
            if model.training:
                losses.append(loss.item())
            seen.append(outputs.logits[:, 0].detach().chunk(2))
            return (loss, outputs) if keywords.get("return_outputs") else loss

        def metrics(entry, prefix, loss):
            c, r = seen[-1]
            return dict(
                loss=loss, rewards_chosen=c.mean().item(), rewards_rejected=r.mean().item(),
                margin=entry[prefix + "margin"], accuracy=entry[prefix + "accuracy"])

        def evaluate():
            trainer.evaluate()
            entry = trainer.state.log_history[-1]
            return metrics(entry, "eval_", entry["eval_loss"])

        trainer.compute_loss = recorded
        before = evaluate()
        seen.clear()
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        steps = []
        assert len(logs) == len(losses) == len(seen) == STEPS
        for entry, loss, (c, r) in zip(logs, losses, seen, strict=True):
            steps.append(dict(
                loss=loss, rewards_chosen=c.mean().item(), rewards_rejected=r.mean().item(),
                margin=entry["margin"], accuracy=entry["accuracy"],
                grad_norm=entry["grad_norm"]))
        after = evaluate()
    return dict(
        steps=steps, eval=dict(before=before, after=after), weights=weights(trainer.model, full))


def make_case(folder, name):
    rows = read_rows(folder / "../preference/pairs.jsonl")
    eval_rows = read_rows(folder / "eval.jsonl")
    wanted = expect(folder, name, rows, eval_rows)
    found = run_trl(folder, name, rows, eval_rows)
    check(name, found, wanted)
    print(f"{name}: losses", [round(step["loss"], 4) for step in found["steps"]])
    (folder / "cases").mkdir(exist_ok=True)
    save_file(found["weights"], folder / "cases" / f"{name}.safetensors")
    settings, full = CASES[name]
    return dict(
        name=name, trainer="trl.RewardTrainer", settings=settings,
        trained="all weights" if full else "adapter and head", loss=FORMULA,
        steps=found["steps"], eval=found["eval"])


def main(folder):
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    write_inputs(folder)
    cases = dict(training=TRAINING, cases=[make_case(folder, name) for name in CASES])
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
