//! LoRA adapters in the form of PEFT: `adapter_config.json`, and the linear layers that it selects.

mod file;

pub(crate) use file::{CONFIG, WEIGHTS};

use crate::{ConfigError, LoraConfig, TargetModules, settings::Settings};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// PEFT's `adapter_config.json`, and the modules that it selects.
#[derive(Clone, Debug)]
pub(crate) struct AdapterConfig {
    settings: Map<String, Value>,
    rank: usize,
    alpha: f64,
    rslora: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
    modules: BTreeSet<String>,
}

/// Keys that do not change the computation of a saved adapter.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Keys that are read.
const READ: &[&str] = &[
    "alpha_pattern",
    "bias",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];

impl AdapterConfig {
    /// Configuration of a new adapter for a model whose linear layers are `modules`; `base` is the
    /// origin of the model.
    pub(crate) fn new(
        config: &LoraConfig,
        modules: &[String],
        base: &str,
    ) -> Result<Self, ConfigError> {
        let targets: Vec<String> = match &config.target_modules {
            TargetModules::List(list) => list.clone(),
            TargetModules::AllLinear => short_names(modules).map(String::from).collect(),
        };
        let mut sorted = targets.clone();
        sorted.sort();
        let alpha = match config.alpha {
            alpha if alpha.fract() == 0.0 && alpha.abs() < 1e15 => json!(alpha as i64),
            alpha => json!(alpha),
        };
        let settings = json!({
            "alpha_pattern": {},
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": config.r,
            "rank_pattern": {},
            "target_modules": sorted,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": config.rslora,
        });
        let mut adapter = Self::from_json(&settings)?;
        adapter.set_dropout(config.dropout)?;
        for target in &targets {
            if !modules.iter().any(|module| ends_with(module, target)) {
                return Err(no_such_module(target, modules));
            }
            let matching = modules.iter().filter(|module| ends_with(module, target));
            adapter.modules.extend(matching.cloned());
        }
        if adapter.modules.is_empty() {
            let reason = "is empty: name linear layers, or leave the key out for all of them";
            return Err(ConfigError::new("target_modules", reason));
        }
        Ok(adapter)
    }

    /// Reads the contents of an `adapter_config.json`; [`Self::set_modules`] adds the modules.
    pub(crate) fn from_json(settings: &Value) -> Result<Self, ConfigError> {
        let Value::Object(settings) = settings else {
            return Err(ConfigError::new("adapter_config", "expected an object"));
        };
        let reader = Settings(settings);
        let exactly = |key: &str, expected: &str| match reader.text(key)? {
            Some(value) if value == expected => Ok(()),
            value => {
                let got = value.map_or("nothing".to_owned(), |value| format!("`{value}`"));
                let reason = format!("expected `{expected}`, got {got}");
                Err(ConfigError::new(key, reason))
            }
        };
        exactly("peft_type", "LORA")?;
        if reader.value("bias").is_some() {
            exactly("bias", "none")?;
        }
        match reader.value("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(name)) if matches!(&**name, "gaussian" | "eva" | "orthogonal") => {}
            // PiSSA and similar methods change the base weights.
            Some(other) => {
                let reason = format!("{other} is not supported");
                return Err(ConfigError::new("init_lora_weights", reason));
            }
        }
        for (key, value) in settings {
            let known = HARMLESS.contains(&key.as_str()) || READ.contains(&key.as_str());
            if !known && !is_off(value) {
                return Err(ConfigError::new(key, format!("{value} is not supported")));
            }
        }
        check_dropout(reader.number("lora_dropout")?.unwrap_or(0.0))?;
        let alpha = reader.number("lora_alpha")?;
        Ok(Self {
            rank: reader.required_dimension("r")?,
            alpha: alpha.ok_or_else(|| ConfigError::new("lora_alpha", "is missing"))?,
            rslora: reader.flag("use_rslora", false)?,
            ranks: patterns(settings, "rank_pattern")?,
            alphas: patterns(settings, "alpha_pattern")?,
            modules: BTreeSet::new(),
            settings: settings.clone(),
        })
    }

    /// Sets the modules for which the adapter's file has factors.
    ///
    /// PEFT selects modules by name or by regular expression; the file says which modules matched,
    /// so expressions need not be interpreted. A plain list must agree with the file.
    pub(crate) fn set_modules(
        &mut self,
        modules: BTreeSet<String>,
        all: &[String],
    ) -> Result<(), ConfigError> {
        self.check_restrictions(&modules)?;
        let restricted = ["layers_to_transform", "layers_pattern", "exclude_modules"]
            .iter()
            .any(|key| !self.settings.get(*key).is_none_or(is_off));
        if let (Some(Value::Array(targets)), false) =
            (self.settings.get("target_modules"), restricted)
        {
            let targets: Vec<&str> = targets.iter().filter_map(Value::as_str).collect();
            let wanted = |module: &str| targets.iter().any(|target| ends_with(module, target));
            for module in all {
                if wanted(module) != modules.contains(module) {
                    let reason = format!("disagrees with the adapter's file about `{module}`");
                    return Err(ConfigError::new("target_modules", reason));
                }
            }
        }
        self.modules = modules;
        Ok(())
    }

    /// Refuses plain restrictions that the adapter's file contradicts.
    fn check_restrictions(&self, modules: &BTreeSet<String>) -> Result<(), ConfigError> {
        let list = |key: &str| match self.settings.get(key) {
            Some(Value::Array(values)) => values.clone(),
            Some(value @ Value::Number(_)) => vec![value.clone()],
            _ => Vec::new(),
        };
        let excluded = list("exclude_modules");
        let layers = list("layers_to_transform");
        let layers: Vec<u64> = layers.iter().filter_map(Value::as_u64).collect();
        for module in modules {
            let mut names = excluded.iter().filter_map(Value::as_str);
            let layer = module.split('.').find_map(|part| part.parse().ok());
            let elsewhere = layer.is_some_and(|layer| !layers.contains(&layer));
            let key = if names.any(|name| ends_with(module, name)) {
                "exclude_modules"
            } else if !layers.is_empty() && elsewhere {
                "layers_to_transform"
            } else {
                continue;
            };
            let reason = format!("leaves out `{module}`, for which the adapter's file has factors");
            return Err(ConfigError::new(key, reason));
        }
        Ok(())
    }

    /// Rank and scale of the adapter of a linear layer, if it has one.
    pub(crate) fn matching(&self, module: &str) -> Option<(usize, f32)> {
        if !self.modules.contains(module) {
            return None;
        }
        let of = |patterns: &[(String, f64)]| {
            let found = patterns
                .iter()
                .find(|(pattern, _)| ends_with(module, pattern));
            found.map(|&(_, value)| value)
        };
        let rank = of(&self.ranks).map_or(self.rank, |rank| rank as usize);
        let alpha = of(&self.alphas).unwrap_or(self.alpha);
        let divisor = match self.rslora {
            true => (rank as f64).sqrt(),
            false => rank as f64,
        };
        Some((rank, (alpha / divisor) as f32))
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

    /// The settings as an `adapter_config.json`.
    pub(crate) fn to_json(&self) -> Value {
        Value::Object(self.settings.clone())
    }
}

/// Last parts of the names, each once: `q_proj`.
fn short_names(modules: &[String]) -> impl Iterator<Item = &str> {
    let last = modules
        .iter()
        .filter_map(|module| module.rsplit('.').next());
    last.collect::<BTreeSet<_>>().into_iter()
}

/// Error about a target that no module has; it lists the existing modules.
fn no_such_module(target: &str, modules: &[String]) -> ConfigError {
    let similar = |name: &&str| strsim::jaro_winkler(target, name);
    let short: Vec<&str> = short_names(modules).collect();
    let all = short
        .iter()
        .copied()
        .chain(modules.iter().map(String::as_str));
    let nearest = all.max_by(|a, b| similar(a).total_cmp(&similar(b)));
    let hint = match nearest.filter(|name| similar(name) > 0.8) {
        Some(name) => format!("did you mean `{name}`? "),
        None => String::new(),
    };
    let why = match target {
        "lm_head" | "embed_tokens" => "adapters are for the decoder's linear layers alone",
        _ => "it names no linear layer of this model",
    };
    let reason = format!("`{target}`: {why}; {hint}There are {}", short.join(", "));
    ConfigError::new("target_modules", reason)
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

/// PEFT's rule for names: the whole name, or the part after a dot.
fn ends_with(module: &str, target: &str) -> bool {
    module
        .strip_suffix(target)
        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether a value disables its key.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Values by the end of module names. PEFT accepts regular expressions here; only plain names are
/// supported.
fn patterns(settings: &Map<String, Value>, key: &str) -> Result<Vec<(String, f64)>, ConfigError> {
    let Some(Value::Object(map)) = settings.get(key) else {
        return match settings.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => Err(ConfigError::new(
                key,
                format!("expected an object, got {value}"),
            )),
        };
    };
    map.iter()
        .map(|(pattern, value)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
            let whole = key == "alpha_pattern" || value.as_u64().is_some_and(|r| r <= 1 << 20);
            match value.as_f64() {
                Some(number) if pattern.chars().all(plain) && number > 0.0 && whole => {
                    Ok((pattern.clone(), number))
                }
                _ => {
                    let reason =
                        format!("expected a module name and a positive number, got {value}");
                    Err(ConfigError::new(format!("{key}.{pattern}"), reason))
                }
            }
        })
        .collect()
}
