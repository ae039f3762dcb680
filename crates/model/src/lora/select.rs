//! Applies a configuration to a model: the modules that get an adapter, and the parameters that the
//! adapter replaces.

use super::{
    AdapterConfig, EMBEDDING, HEAD, Inventory, PREFIX,
    inventory::ModuleKind,
    matching::{Choice, ends_with},
    short_names,
};
use crate::{ConfigError, TrainedBiases};

impl AdapterConfig {
    /// Selects modules and parameters of a model, as PEFT does.
    pub(crate) fn select(&mut self, inventory: &Inventory) -> Result<(), ConfigError> {
        self.modules.clear();
        for (module, kind) in &inventory.modules {
            if self.rules.choice(module)? != Choice::Chosen {
                continue;
            }
            match kind {
                ModuleKind::Linear { .. } => {}
                ModuleKind::Head if inventory.scores => {
                    return Err(no_adapter_for(module, inventory));
                }
                ModuleKind::Embedding | ModuleKind::Head => self.check_table(module)?,
                ModuleKind::Norm | ModuleKind::Other => {
                    return Err(no_adapter_for(module, inventory));
                }
            }
            let (rank, scale) = self.rank_and_scale(module)?;
            let scale = scale as f32;
            self.modules.insert(module.clone(), (rank, scale));
        }
        self.copies.clear();
        self.select_saved(inventory)?;
        self.select_biases(inventory);
        self.select_rows(inventory)
    }

    /// Refuses settings that do not exist for the embedding and the head.
    fn check_table(&self, module: &str) -> Result<(), ConfigError> {
        let (key, what) = match (self.dora, self.initial, self.ensure_weight_tying) {
            (true, ..) => ("use_dora", "have no magnitudes here"),
            (_, initial, _) if initial.are_taken_out() => {
                ("init", "cannot start from their weights")
            }
            (.., true) => ("ensure_weight_tying", "have factors of their own each"),
            (false, _, false) => return Ok(()),
        };
        let reason = format!(
            "the embedding and the head {what}, and target_modules selects `{module}`; \
             exclude_modules takes it out"
        );
        Err(ConfigError::new(key, reason))
    }

    /// `modules_to_save`: every module whose name ends with one of the names.
    fn select_saved(&mut self, inventory: &Inventory) -> Result<(), ConfigError> {
        let wrong = |reason| ConfigError::new("modules_to_save", reason);
        // PEFT lists all names that such heads have.
        let other_head = |name: &&String| inventory.scores && *name == "classifier";
        for name in self.saved.iter().filter(|name| !other_head(name)) {
            let mut found = false;
            for (module, kind) in &inventory.modules {
                if !module.ends_with(name.as_str()) {
                    continue;
                }
                found = true;
                if !matches!(
                    kind,
                    ModuleKind::Norm | ModuleKind::Embedding | ModuleKind::Head
                ) {
                    return Err(wrong(format!(
                        "`{name}` names `{module}`, and only the embedding (embed_tokens), the head \
                         (lm_head) and norms can be trained whole beside an adapter"
                    )));
                }
                let parameter = format!("{module}.weight");
                let in_file = format!("{PREFIX}{parameter}");
                self.copies.insert(parameter, in_file);
            }
            if !found {
                return Err(wrong(format!(
                    "`{name}` is the end of no module's name in this model; there are embed_tokens, {} \
                     and norms",
                    if inventory.scores { "score" } else { "lm_head" }
                )));
            }
        }
        let [embedding, head] = [EMBEDDING, HEAD].map(|module| format!("{module}.weight"));
        let copied = self.copies.contains_key(&embedding) || self.copies.contains_key(&head);
        self.shared = self.ensure_weight_tying && inventory.tied && copied;
        if self.shared {
            let in_file = format!("{PREFIX}{embedding}");
            self.copies.insert(embedding, in_file);
            self.copies.remove(&head);
        }
        Ok(())
    }

    fn select_biases(&mut self, inventory: &Inventory) {
        for (module, kind) in &inventory.modules {
            if *kind != (ModuleKind::Linear { bias: true }) {
                continue;
            }
            // PEFT moves the bias of a layer with an adapter.
            let (adapted, place) = match self.modules.contains_key(module) {
                true => (true, ".base_layer"),
                false => (false, ""),
            };
            let trained = match self.bias {
                TrainedBiases::None => false,
                TrainedBiases::All => true,
                TrainedBiases::LoraOnly => adapted,
            };
            if trained {
                let in_file = format!("{PREFIX}{module}{place}.bias");
                self.copies.insert(format!("{module}.bias"), in_file);
            }
        }
    }

    /// Refuses settings of a new adapter that select nothing.
    pub(super) fn check_use(&self, inventory: &Inventory) -> Result<(), ConfigError> {
        let all = || inventory.modules.iter().map(|(module, _)| module.as_str());
        for target in self.rules.target_names() {
            if !all().any(|module| ends_with(module, target)) {
                return Err(no_such_module(target, inventory));
            }
        }
        for name in self.rules.excluded_names() {
            if !all().any(|module| ends_with(module, name)) {
                let reason = format!("`{name}` names no module of this model");
                return Err(ConfigError::new("exclude_modules", reason));
            }
        }
        if self.rules.has_excluded() {
            let mut excluded = false;
            for module in all() {
                excluded |= self.rules.excludes(module)?;
            }
            if !excluded {
                let reason = "matches no module of this model";
                return Err(ConfigError::new("exclude_modules", reason));
            }
        }
        let layers = inventory.layers;
        if let Some(layer) = self.rules.layers().iter().find(|&&l| l >= layers as u64) {
            let reason = format!("there is no layer {layer}: the model has {layers}, from 0");
            return Err(ConfigError::new("layers_to_transform", reason));
        }
        if self.modules.is_empty() {
            for module in inventory.adaptable() {
                let ruled_out = match self.rules.choice(module)? {
                    Choice::Not("target_modules") | Choice::Chosen => continue,
                    Choice::Not(key) => key,
                };
                let reason = "leaves out every module that target_modules selects";
                return Err(ConfigError::new(ruled_out, reason));
            }
            let hint = match self.rules.target_names() {
                [] => {
                    let short: Vec<_> = short_names(inventory.linears()).collect();
                    format!(
                        "; an expression must match the whole name, as in \
                         `.*\\.({})`",
                        short.join("|")
                    )
                }
                _ => String::new(),
            };
            let reason = format!("selects no linear layer of this model{hint}");
            return Err(ConfigError::new("target_modules", reason));
        }
        for (key, pattern) in self.rules.patterns() {
            let mut matches = false;
            for module in self.modules.keys() {
                matches |= pattern.matches(key, module)?;
            }
            if !matches {
                let reason = "matches no module that has an adapter";
                return Err(ConfigError::new(format!("{key}.{}", pattern.key), reason));
            }
            let mut counts = false;
            for module in self.modules.keys() {
                counts |= self.rules.is_first(key, pattern, module)?;
            }
            if !counts {
                let reason = "never counts: the first expression that matches a module counts, and \
                              an earlier one matches each of its modules";
                return Err(ConfigError::new(format!("{key}.{}", pattern.key), reason));
            }
        }
        if self.ensure_weight_tying && !self.shared {
            let reason = match inventory.tied {
                true => "needs `embed_tokens` or `lm_head` in modules_to_save",
                false => "the head of this model is not its embedding",
            };
            return Err(ConfigError::new("ensure_weight_tying", reason));
        }
        let trains_biases = self.copies.keys().any(|name| name.ends_with(".bias"));
        if self.bias != TrainedBiases::None && !trains_biases {
            let reason = match self.bias {
                TrainedBiases::LoraOnly => "no layer with an adapter has a bias in this model",
                _ => "this model has no biases",
            };
            return Err(ConfigError::new("bias", reason));
        }
        Ok(())
    }

    /// Refuses an adapter's file with factors for other modules than the configuration selects.
    pub(super) fn check_file(
        &self,
        found: impl Fn(&str) -> bool,
        inventory: &Inventory,
    ) -> Result<(), ConfigError> {
        for module in inventory.adaptable() {
            let (chosen, found) = (self.modules.contains_key(module), found(module));
            if chosen == found {
                continue;
            }
            let (key, reason) = match self.rules.choice(module)? {
                Choice::Chosen => (
                    "target_modules",
                    format!("selects `{module}`, for which the adapter's file has no factors"),
                ),
                Choice::Not(key) => (
                    key,
                    format!("leaves out `{module}`, for which the adapter's file has factors"),
                ),
            };
            return Err(ConfigError::new(key, reason));
        }
        Ok(())
    }
}

/// Error about a selected module that cannot have an adapter.
fn no_adapter_for(module: &str, inventory: &Inventory) -> ConfigError {
    let short: Vec<&str> = short_names(inventory.linears()).collect();
    let reason = format!(
        "selects `{module}`: it is no linear layer and no embedding; there are {}",
        short.join(", ")
    );
    ConfigError::new("target_modules", reason)
}

/// Error about a target that no module has; it lists the existing modules.
fn no_such_module(target: &str, inventory: &Inventory) -> ConfigError {
    let similar = |name: &&str| strsim::jaro_winkler(target, name);
    let short: Vec<&str> = short_names(inventory.linears()).collect();
    let all = short.iter().copied().chain(inventory.linears());
    let nearest = all.max_by(|a, b| similar(a).total_cmp(&similar(b)));
    let hint = match nearest.filter(|name| similar(name) > 0.8) {
        Some(name) => format!("did you mean `{name}`? There"),
        None => "there".to_owned(),
    };
    let reason = format!(
        "`{target}`: it names no linear layer of this model; {hint} are {}",
        short.join(", ")
    );
    ConfigError::new("target_modules", reason)
}
