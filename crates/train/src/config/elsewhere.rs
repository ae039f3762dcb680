//! Names that the settings of other trainers have here.

use super::{KEYS, Key};

/// Names in Transformers, TRL, PEFT, LLaMA-Factory, Axolotl and Unsloth, and the key here. Names that
/// are the same but for their section are not listed.
const NAMES: &[(&str, &str)] = &[
    ("adam_beta1", "optimizer.beta1"),
    ("adam_beta2", "optimizer.beta2"),
    ("adam_epsilon", "optimizer.eps"),
    ("add_special_tokens", "tokens.add_special"),
    ("add_tokens", "tokens.add"),
    ("base_model", "model"),
    ("batch_size", "batch.packs_per_step"),
    ("bf16", "precision"),
    ("cutoff_len", "data.max_length"),
    ("dataset", "data.train"),
    ("datasets", "data.train"),
    ("early_stopping_patience", "run.patience"),
    ("eval_dataset", "data.eval"),
    ("eval_steps", "run.eval_every"),
    ("fp16", "precision"),
    ("fp32", "precision"),
    ("gradient_accumulation_steps", "batch.accumulation"),
    ("gradient_checkpointing", "run.recompute"),
    ("init_lora_weights", "lora.init"),
    ("init_special_tokens", "tokens.init"),
    ("load_best_model_at_end", "run.result"),
    ("load_in_4bit", "lora.quantize"),
    ("lora_alpha", "lora.alpha"),
    ("lora_dropout", "lora.dropout"),
    ("lora_r", "lora.r"),
    ("lora_rank", "lora.r"),
    ("lora_target", "lora.target_modules"),
    ("lora_target_modules", "lora.target_modules"),
    ("loraplus_lr_ratio", "lora.lora_plus_ratio"),
    ("lr", "optimizer.learning_rate"),
    ("lr_scheduler", "schedule.kind"),
    ("lr_scheduler_type", "schedule.kind"),
    ("max_seq_len", "data.max_length"),
    ("max_seq_length", "data.max_length"),
    ("micro_batch_size", "batch.packs_per_step"),
    ("model_name", "model"),
    ("model_name_or_path", "model"),
    ("new_special_tokens_config", "tokens.descriptions"),
    ("num_cycles", "schedule.cycles"),
    ("num_decay_steps", "schedule.decay_steps"),
    ("num_epochs", "run.epochs"),
    ("num_train_epochs", "run.epochs"),
    ("optim", "optimizer.kind"),
    ("output_dir", "output"),
    ("per_device_train_batch_size", "batch.packs_per_step"),
    ("quantization_bit", "lora.quantize"),
    ("rank", "lora.r"),
    ("save_steps", "run.save_every"),
    ("save_total_limit", "run.keep"),
    ("sequence_len", "data.max_length"),
    ("special_tokens", "tokens.add_special"),
    ("train_dataset", "data.train"),
    ("use_dora", "lora.dora"),
    ("use_rslora", "lora.rslora"),
    ("val_set_size", "data.eval_ratio"),
    ("val_size", "data.eval_ratio"),
];

impl Key {
    /// The key that has this name in other trainers.
    pub fn named_elsewhere(name: &str) -> Option<&'static Key> {
        let path = NAMES.iter().find(|(other, _)| *other == name)?.1;
        KEYS.iter().find(|key| key.path() == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_new_and_leads_to_a_key() {
        for (index, (name, path)) in NAMES.iter().enumerate() {
            assert!(Key::find(path).is_some(), "{path}");
            assert!(KEYS.iter().all(|key| key.name != *name), "{name}");
            assert!(
                NAMES[..index].iter().all(|(other, _)| other < name),
                "{name}"
            );
        }
    }
}
