"""Makes the golden cases of KTO and of dynamic fine-tuning: what TRL's trainers compute in f32.

Model, adapter and versions are those of preference.py; every loss, metric, norm and weight is
checked against the formulas below, computed in f64.
Usage: python labelled.py FOLDER (with the folder `preference` beside it)
"""

import json
import pathlib
import sys
import tempfile

import datasets
import torch
import transformers
from preference import (
    STEPS,
    TRAINING,
    check,
    load,
    numbers,
    pairs,
    read_rows,
    tokenizer,
    weights,
)
from safetensors.torch import save_file
from transformers import PrinterCallback
from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

# Lengths of prompt and completion, and the label.
ANSWERS = [
    (3, 5, True), (9, 2, False), (4, 7, True), (6, 1, True), (5, 4, False), (7, 3, True),
    (2, 6, False)]
EVAL = [(8, 4, False), (3, 2, True), (5, 6, True)]

# Settings, whether all weights are trained instead of the adapter, and the answers' reference.
CASES = {
    "kto": (dict(beta=0.1), False),
    "kto_weights": (dict(beta=0.5, desirable_weight=1.5, undesirable_weight=0.7), False),
    "kto_full": (dict(beta=0.1, learning_rate=1e-3), True),
    "dft": (None, False),
}
FORMULAS = {
    "kto": (
        "mean over answers of dw (1 - sigmoid(beta (l - r - z))) or "
        "uw (1 - sigmoid(beta (z - l + r))); l, r: sums of log-probabilities of policy and "
        "reference; z: mean of l - r over prompts with the completion of the row before, at least 0"),
    "dft": "sum of -p log p over completion tokens / their number; p has no gradient",
}


def write_inputs(folder):
    generator = torch.Generator().manual_seed(3)
    for name, answers in (("answers", ANSWERS), ("eval", EVAL)):
        rows = pairs([(prompt, answer, 0, 0) for prompt, answer, _ in answers], generator)
        rows = [
            dict(prompt_ids=row["prompt_ids"], completion_ids=row["chosen_ids"], label=label)
            for row, (_, _, label) in zip(rows, answers, strict=True)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tokens(model, prompt, completion):
    """Log-probabilities of the completion's tokens."""
    ids = torch.tensor(prompt + completion)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, ids[1:, None])[len(prompt) - 1:, 0]


def answers(model, rows):
    """Sums over each completion, and over the completion of the row before after the same prompt."""
    before = rows[-1:] + rows[:-1]
    own = [tokens(model, row["prompt_ids"], row["completion_ids"]).sum() for row in rows]
    other = [
        tokens(model, row["prompt_ids"], last["completion_ids"]).sum()
        for row, last in zip(rows, before, strict=True)]
    return torch.stack(own), torch.stack(other)


def formula(name, model, rows, reference):
    if name == "dft":
        all_tokens = torch.cat([tokens(model, r["prompt_ids"], r["completion_ids"]) for r in rows])
        return -(all_tokens.exp().detach() * all_tokens).mean(), {}
    settings = CASES[name][0]
    beta = settings["beta"]
    own, other = answers(model, rows)
    z = (other - reference[1]).mean().clamp(min=0).detach()
    good = torch.tensor([row["label"] for row in rows])
    ratio = own - reference[0]
    losses = torch.where(
        good,
        settings.get("desirable_weight", 1.0) * (1 - torch.sigmoid(beta * (ratio - z))),
        settings.get("undesirable_weight", 1.0) * (1 - torch.sigmoid(beta * (z - ratio))))
    chosen, rejected = beta * ratio[good].mean(), beta * ratio[~good].mean()
    return losses.mean(), dict(
        rewards_chosen=chosen, rewards_rejected=rejected, margin=chosen - rejected, kl=z)


def expect(folder, name, rows, eval_rows):
    settings, full = CASES[name]
    model = load(folder, full).double().eval()
    base = load(folder, full=True).double().eval()
    with torch.no_grad():
        references = [answers(base, some) for some in (rows, eval_rows)]

    def evaluate():
        with torch.no_grad():
            loss, metrics = formula(name, model, eval_rows, references[1])
            return numbers(dict(loss=loss, **metrics))

    parameters = [p for p in model.parameters() if p.requires_grad]
    rate = (settings or {}).get("learning_rate", TRAINING["learning_rate"])
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(TRAINING["adam_beta1"], TRAINING["adam_beta2"]),
        eps=TRAINING["adam_epsilon"], weight_decay=TRAINING["weight_decay"])
    before, steps = evaluate(), []
    for _ in range(STEPS):
        loss, metrics = formula(name, model, rows, references[0])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        optimizer.step()
        steps.append(numbers(dict(loss=loss, **metrics, grad_norm=norm)))
    evaluation = dict(before=before, after=evaluate())
    return dict(steps=steps, eval=evaluation, weights=weights(model, full), paper=steps[0]["loss"])


class Kto(KTOTrainer):
    def _prepare_dataset(self, dataset, *_):
        ids = dataset["completion_ids"]
        return dataset.add_column("KL_completion_ids", ids[-1:] + ids[:-1])


class Sft(SFTTrainer):
    def _prepare_dataset(self, dataset, *_):
        def whole(row):
            prompt, completion = row["prompt_ids"], row["completion_ids"]
            return dict(
                input_ids=prompt + completion,
                labels=[-100] * len(prompt) + completion)

        return dataset.map(whole, remove_columns=dataset.column_names)


def run_trl(folder, name, rows, eval_rows):
    settings, full = CASES[name]
    losses = []
    common = dict(
        use_cpu=True, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
        max_length=64, **TRAINING)
    common["per_device_train_batch_size"] = len(rows)
    common["per_device_eval_batch_size"] = len(eval_rows)
    with tempfile.TemporaryDirectory() as output:
        if name == "dft":
            config = SFTConfig(
                output_dir=output, loss_type="dft", completion_only_loss=True, **common)
            trainer_class, other = Sft, {}
        else:
            config = KTOConfig(
                output_dir=output, disable_dropout=True, **{**common, **settings})
            trainer_class, other = Kto, dict(ref_model=load(folder, full=True))
        trainer = trainer_class(
            model=load(folder, full), args=config, processing_class=tokenizer(),
            train_dataset=datasets.Dataset.from_list(rows),
            eval_dataset=datasets.Dataset.from_list(eval_rows), **other)
        trainer.remove_callback(PrinterCallback)
        compute_loss = trainer.compute_loss

        def recorded(model, *arguments, **keywords):
            loss = compute_loss(model, *arguments, **keywords)
            if model.training:
                losses.append(loss.item())
            return loss

        trainer.compute_loss = recorded

        def evaluate():
            trainer.evaluate()
            return metrics(trainer.state.log_history[-1], "eval_", name)

        before = evaluate()
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        after = evaluate()
    steps = [
        dict(metrics(entry, "", name), loss=loss, grad_norm=entry["grad_norm"])
        for entry, loss in zip(logs, losses, strict=True)]
    return dict(
        steps=steps, eval=dict(before=before, after=after), weights=weights(trainer.model, full))


def metrics(entry, prefix, name):
    names = dict(loss="loss")
    if name != "dft":
        names.update(
            rewards_chosen="rewards/chosen", rewards_rejected="rewards/rejected",
            margin="rewards/margins", kl="kl")
    return {key: entry[prefix + of] for key, of in names.items()}


def make_case(folder, models, name):
    settings, full = CASES[name]
    rows, eval_rows = read_rows(folder / "answers.jsonl"), read_rows(folder / "eval.jsonl")
    wanted = expect(models, name, rows, eval_rows)
    found = run_trl(models, name, rows, eval_rows)
    check(name, found, wanted)
    print(f"{name}: losses", [round(step["loss"], 4) for step in found["steps"]])
    (folder / "cases").mkdir(exist_ok=True)
    save_file(found["weights"], folder / "cases" / f"{name}.safetensors")
    return dict(
        name=name, settings=settings, loss=FORMULAS[name.split("_")[0]],
        trained="all weights" if full else "adapter", steps=found["steps"], eval=found["eval"])


def main(folder):
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    write_inputs(folder)
    models = folder.parent / "preference"
    cases = dict(training=TRAINING, cases=[make_case(folder, models, name) for name in CASES])
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
