//! LoRA adapters in the form of PEFT: `adapter_config.json`, and what it selects in a model.

mod combine;
mod file;
mod inventory;
mod keys;
mod matching;
mod select;
mod tokens;

pub use combine::{Combination, combine_adapters};
pub(crate) use file::{CONFIG, WEIGHTS, scores};
pub(crate) use inventory::{EMBEDDING, HEAD, Inventory, SCORE};
pub(crate) use tokens::vocabulary;

use crate::{
    ConfigError, InitialFactors, LoraConfig, ModuleNames, TargetModules, TrainedBiases,
    settings::Settings,
};
use matching::Rules;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Prefix that PEFT puts before the name of a module.
pub(crate) const PREFIX: &str = "base_model.model.";

/// `task_type` of an adapter for a model that scores sequences.
const SCORES: &str = "SEQ_CLS";

/// PEFT's `adapter_config.json`, and what it selects.
#[derive(Clone, Debug)]
pub(crate) struct AdapterConfig {
    settings: Map<String, Value>,
    rank: usize,
    alpha: f64,
    rslora: bool,
    dora: bool,
    /// Initial factors of a new adapter; those of files are plain.
    initial: InitialFactors,
    /// Whether the adapter makes up for what NF4 loses of the weights (`loftq_config`).
    needs_nf4: bool,
    rules: Rules,
    bias: TrainedBiases,
    /// `modules_to_save`.
    saved: Vec<String>,
    ensure_weight_tying: bool,
    /// Rank and scale of each module that has an adapter.
    modules: BTreeMap<String, (usize, f32)>,
    /// Names in the adapter's file of the parameters that the adapter replaces, by their own names.
    copies: BTreeMap<String, String>,
    /// Whether the head uses the adapter's embedding.
    shared: bool,
    /// `trainable_token_indices`.
    tokens: tokens::ByModule,
    /// Name in the adapter's file and numbers of the trained rows of each table.
    rows: BTreeMap<String, (String, Vec<usize>)>,
    /// Names in the adapter's file of tables that it holds whole, by their own names.
    tables: BTreeMap<String, String>,
}

impl AdapterConfig {
    /// Configuration of a new adapter for a model with `new` tokens; `base` is the origin of the
    /// model.
    pub(crate) fn new(
        config: &LoraConfig,
        inventory: &Inventory,
        base: &str,
        new: &[u32],
    ) -> Result<Self, ConfigError> {
        let targets = match &config.target_modules {
            TargetModules::Named(names) => named(names),
            TargetModules::AllLinear => {
                let short = short_names(inventory.linears());
                json!(short.collect::<Vec<_>>())
            }
        };
        // A head for a task is trained whole, as in PEFT.
        let mut saved = config.modules_to_save.clone();
        if inventory.scores && !saved.iter().any(|name| name == SCORE) {
            saved.push(SCORE.to_owned());
        }
        let mut settings = json!({
            "alpha_pattern": map(&config.alpha_pattern, |&alpha| number(alpha)),
            "base_model_name_or_path": base,
            "bias": config.bias.name(),
            "exclude_modules": config.exclude_modules.as_ref().map(named),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_to_transform": (!config.layers.is_empty()).then_some(&config.layers),
            "lora_alpha": number(config.alpha),
            "lora_dropout": 0.0,
            "modules_to_save": (!saved.is_empty()).then_some(saved),
            "peft_type": "LORA",
            "r": config.r,
            "rank_pattern": map(&config.rank_pattern, |rank| json!(rank)),
            "target_modules": targets,
            "task_type": if inventory.scores { SCORES } else { "CAUSAL_LM" },
            "use_dora": config.dora,
            "use_rslora": config.rslora,
        });
        if let Some(indices) = &config.trainable_token_indices {
            settings["trainable_token_indices"] = tokens::to_json(indices);
        }
        // What PEFT itself starts so belongs to other weights than bitsandbytes makes; this adapter is
        // a plain one for those of bitsandbytes.
        if config.init == InitialFactors::Loftq {
            settings["loftq_config"] = json!({"loftq_bits": 4, "loftq_iter": 1});
        }
        // Older releases of PEFT refuse the key.
        if config.ensure_weight_tying {
            settings["ensure_weight_tying"] = json!(true);
        }
        let mut adapter = Self::from_json(&settings)?;
        adapter.set_dropout(config.dropout)?;
        adapter.initial = config.init;
        if config.init.are_taken_out() && config.dora {
            let reason = "an adapter with magnitudes cannot start from the weights";
            return Err(ConfigError::new("init", reason));
        }
        adapter.add_new_tokens(new, inventory)?;
        adapter.select(inventory)?;
        adapter.check_use(inventory)?;
        adapter.check_new_tokens(new, inventory)?;
        Ok(adapter)
    }

    /// Reads the contents of an `adapter_config.json`; [`Self::select`] applies it to a model.
    pub(crate) fn from_json(settings: &Value) -> Result<Self, ConfigError> {
        let Value::Object(settings) = settings else {
            return Err(ConfigError::new("adapter_config", "expected an object"));
        };
        keys::check(settings)?;
        let reader = Settings(settings);
        check_dropout(reader.number("lora_dropout")?.unwrap_or(0.0))?;
        let alpha = reader.number("lora_alpha")?;
        Ok(Self {
            rank: reader.required_dimension("r")?,
            alpha: alpha.ok_or_else(|| ConfigError::new("lora_alpha", "is missing"))?,
            rslora: reader.flag("use_rslora", false)?,
            dora: reader.flag("use_dora", false)?,
            initial: InitialFactors::Random,
            needs_nf4: reader
                .value("loftq_config")
                .is_some_and(|v| !keys::is_off(v)),
            rules: Rules::read(settings)?,
            bias: match reader.text("bias")? {
                None | Some("none") => TrainedBiases::None,
                Some("all") => TrainedBiases::All,
                Some("lora_only") => TrainedBiases::LoraOnly,
                Some(other) => {
                    let reason = format!("expected none, all or lora_only, got `{other}`");
                    return Err(ConfigError::new("bias", reason));
                }
            },
            saved: reader.texts("modules_to_save")?,
            ensure_weight_tying: reader.flag("ensure_weight_tying", false)?,
            modules: BTreeMap::new(),
            copies: BTreeMap::new(),
            shared: false,
            tokens: tokens::read(settings)?,
            rows: BTreeMap::new(),
            tables: BTreeMap::new(),
            settings: settings.clone(),
        })
    }

    /// Rank and scale of the adapter of a module, if it has one.
    pub(crate) fn matching(&self, module: &str) -> Option<(usize, f32)> {
        self.modules.get(module).copied()
    }

    /// Initial factors of a new adapter.
    pub(crate) fn initial(&self) -> InitialFactors {
        self.initial
    }

    /// Whether the weights below the adapter have to be in NF4.
    pub(crate) fn needs_nf4(&self) -> bool {
        self.needs_nf4
    }

    /// Whether the adapter has magnitudes.
    pub(crate) fn is_dora(&self) -> bool {
        self.dora
    }

    /// Rank and scale that a module has if it is selected.
    fn rank_and_scale(&self, module: &str) -> Result<(usize, f64), ConfigError> {
        let rank = self.rules.rank(module)?.unwrap_or(self.rank);
        let alpha = self.rules.alpha(module)?.unwrap_or(self.alpha);
        let divisor = match self.rslora {
            true => (rank as f64).sqrt(),
            false => rank as f64,
        };
        Ok((rank, alpha / divisor))
    }

    /// Name in the adapter's file of a parameter that the adapter replaces.
    pub(crate) fn copy_of(&self, parameter: &str) -> Option<&str> {
        self.copies.get(parameter).map(String::as_str)
    }

    /// Whether the head uses the adapter's embedding, if there is one.
    pub(crate) fn shares_embedding(&self) -> bool {
        self.shared
    }

    /// Sets the model that the adapter belongs to: a hub id and a revision, or a path.
    pub(crate) fn set_base(&mut self, name: &str, revision: Option<&str>) {
        let key = "base_model_name_or_path";
        self.settings.insert(key.into(), json!(name));
        self.settings.insert("revision".into(), json!(revision));
    }

    /// Sets the dropout for training.
    pub(crate) fn set_dropout(&mut self, probability: f32) -> Result<(), ConfigError> {
        // The decimal that was intended: 0.1, not 0.10000000149.
        let shortest = check_dropout(probability.to_string().parse().unwrap_or(f64::NAN))?;
        self.settings.insert("lora_dropout".into(), json!(shortest));
        Ok(())
    }

    /// The settings as an `adapter_config.json`. An adapter whose factors were taken out of the weights
    /// has twice the rank in files, and the same scale.
    pub(crate) fn to_json(&self) -> Value {
        let mut settings = self.settings.clone();
        if self.initial.are_taken_out() {
            let wider = if self.rslora { 2f64.sqrt() } else { 2.0 };
            let times = |value: &Value, factor: f64| number(factor * value.as_f64().unwrap_or(0.0));
            for (key, patterns, factor) in [
                ("r", "rank_pattern", 2.0),
                ("lora_alpha", "alpha_pattern", wider),
            ] {
                settings.insert(key.into(), times(&settings[key], factor));
                if let Some(Value::Object(map)) = settings.get_mut(patterns) {
                    map.values_mut()
                        .for_each(|value| *value = times(value, factor));
                }
            }
        }
        Value::Object(settings)
    }
}

/// Names in order, or an expression.
fn named(names: &ModuleNames) -> Value {
    match names {
        ModuleNames::List(names) => json!(names.iter().collect::<BTreeSet<_>>()),
        ModuleNames::Expression(expression) => json!(expression),
    }
}

/// A number without a fraction as a whole one, as PEFT writes α.
fn number(number: f64) -> Value {
    match number {
        number if number.fract() == 0.0 && number.abs() < 1e15 => json!(number as i64),
        number => json!(number),
    }
}

fn map<V>(patterns: &[(String, V)], value: impl Fn(&V) -> Value) -> Value {
    let entries = patterns.iter().map(|(key, v)| (key.clone(), value(v)));
    Value::Object(entries.collect())
}

/// Last parts of the names, each once: `q_proj`.
fn short_names<'a>(modules: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let last = modules.filter_map(|module| module.rsplit('.').next());
    last.collect::<BTreeSet<_>>().into_iter()
}

fn check_dropout(probability: f64) -> Result<f64, ConfigError> {
    match (0.0..1.0).contains(&probability) {
        true => Ok(probability),
        false => {
            let reason = format!("expected at least 0 and less than 1, got {probability}");
            Err(ConfigError::new("lora_dropout", reason))
        }
    }
}
