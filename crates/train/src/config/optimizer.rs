//! The section `[optimizer]`.

use super::{
    ConfigError,
    kinds::{self, Kind, Preset, refuse},
    read::Values,
};
use serde::{Deserialize, Serialize};
use toml::Value;

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct OptimizerSection {
    #[serde(flatten)]
    pub kind: OptimizerKind,
    pub state: OptimizerState,
    pub learning_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_learning_rate: Option<f64>,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
}

/// The optimizer, with the settings that only it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum OptimizerKind {
    Adamw(AdamwSettings),
    Muon(MuonSettings),
    Adafactor(AdafactorSettings),
    Lion(LionSettings),
    ScheduleFree(ScheduleFreeSettings),
}

/// Settings of AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct AdamwSettings {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

/// Settings of Muon, and of AdamW for the parameters that are no matrices of layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct MuonSettings {
    pub momentum: f64,
    pub nesterov: bool,
    pub ns_steps: usize,
    pub adjust_lr: AdjustLr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adamw_learning_rate: Option<f64>,
    #[serde(flatten)]
    pub adamw: AdamwSettings,
}

/// How Muon adjusts the learning rate to the shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum AdjustLr {
    Original,
    MatchRmsAdamw,
}

/// Settings of Adafactor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct AdafactorSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    pub decay_rate: f64,
    pub eps: f64,
    pub clip_threshold: f64,
    pub scale_parameter: bool,
}

/// Settings of Lion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct LionSettings {
    pub beta1: f64,
    pub beta2: f64,
}

/// Settings of schedule-free AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct ScheduleFreeSettings {
    #[serde(flatten)]
    pub adamw: AdamwSettings,
    pub r: f64,
    pub weight_lr_power: f64,
}

/// Storage of the moments of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum OptimizerState {
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "8bit")]
    EightBits,
}

impl OptimizerState {
    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerState::F32 => "f32",
            OptimizerState::Bf16 => "bf16",
            OptimizerState::EightBits => "8bit",
        }
    }
}

impl OptimizerKind {
    /// Name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerKind::Adamw(_) => "adamw",
            OptimizerKind::Muon(_) => "muon",
            OptimizerKind::Adafactor(_) => "adafactor",
            OptimizerKind::Lion(_) => "lion",
            OptimizerKind::ScheduleFree(_) => "schedule-free",
        }
    }
}

use Preset::{Absent, Flag, Integer, Number, Word};

/// The kinds, with the defaults of the implementations that docs/optimizers.md names.
const KINDS: [Kind; 5] = [
    Kind {
        name: "adamw",
        reads: &[
            ("optimizer.beta1", Number(0.9)),
            ("optimizer.beta2", Number(0.999)),
            ("optimizer.eps", Number(1e-8)),
            ("optimizer.weight_decay", Number(0.01)),
        ],
    },
    Kind {
        name: "muon",
        reads: &[
            ("optimizer.momentum", Number(0.95)),
            ("optimizer.nesterov", Flag(true)),
            ("optimizer.ns_steps", Integer(5)),
            ("optimizer.adjust_lr", Word("match-rms-adamw")),
            ("optimizer.adamw_learning_rate", Absent),
            ("optimizer.beta1", Number(0.9)),
            ("optimizer.beta2", Number(0.999)),
            ("optimizer.eps", Number(1e-8)),
            ("optimizer.weight_decay", Number(0.1)),
        ],
    },
    Kind {
        name: "adafactor",
        reads: &[
            ("optimizer.beta1", Absent),
            ("optimizer.decay_rate", Number(-0.8)),
            ("optimizer.eps", Number(1e-30)),
            ("optimizer.clip_threshold", Number(1.0)),
            ("optimizer.scale_parameter", Flag(false)),
            ("optimizer.weight_decay", Number(0.0)),
        ],
    },
    Kind {
        name: "lion",
        reads: &[
            ("optimizer.beta1", Number(0.9)),
            ("optimizer.beta2", Number(0.99)),
            ("optimizer.weight_decay", Number(0.0)),
        ],
    },
    Kind {
        name: "schedule-free",
        reads: &[
            ("optimizer.beta1", Number(0.9)),
            ("optimizer.beta2", Number(0.999)),
            ("optimizer.eps", Number(1e-8)),
            ("optimizer.r", Number(0.0)),
            ("optimizer.weight_lr_power", Number(2.0)),
            ("optimizer.weight_decay", Number(0.0)),
        ],
    },
];

/// Names of the kinds.
pub(super) const NAMES: [&str; KINDS.len()] = kinds::names(&KINDS);

/// Keys that every kind reads.
const ALWAYS: [&str; 5] = [
    "optimizer.state",
    "optimizer.learning_rate",
    "optimizer.embedding_learning_rate",
    "optimizer.head_learning_rate",
    "optimizer.max_grad_norm",
];

/// What a kind can store its moments in, besides f32.
fn stores(kind: &str) -> &'static [&'static str] {
    match kind {
        "adamw" => &["bf16", "8bit"],
        "lion" => &["bf16"],
        _ => &[],
    }
}

/// Defaults of the keys that the kind reads; refuses those that it does not read, and values that
/// mean nothing to it.
pub(super) fn derived(values: &Values) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let kind = kinds::kind(values, "optimizer", &KINDS, &KINDS[0]);
    let mut derived = kinds::derived(values, "optimizer", kind, &ALWAYS)?;
    let name = kind.name;
    let word = |key: &str| values.get(key).and_then(Value::as_str);
    let state = word("optimizer.state").unwrap_or("f32");
    if state != "f32" && !stores(name).contains(&state) {
        let others = stores(name).iter().map(|state| format!(" or {state}"));
        let others: String = others.collect();
        refuse(values, "optimizer.state", || {
            format!(
                "`optimizer.state` = \"{state}\" does not go with `optimizer.kind` = \"{name}\", which \
                 stores f32{others}"
            )
        })?;
    }
    if name == "schedule-free" {
        let beta1 = values.get("optimizer.beta1").and_then(Value::as_float);
        if beta1 == Some(0.0) {
            refuse(values, "optimizer.beta1", || {
                "`optimizer.beta1` must be above 0 with `optimizer.kind` = \"schedule-free\", which \
                 divides by it"
                    .into()
            })?;
        }
        if let Some(schedule) = word("schedule.kind").filter(|kind| *kind != "constant") {
            refuse(values, "schedule.kind", || {
                format!(
                    "`schedule.kind` = \"{schedule}\" does not go with `optimizer.kind` = \"{name}\", \
                     whose average takes the place of a decrease; set \"constant\", or remove it"
                )
            })?;
        }
        derived.push(("schedule.kind", Value::String("constant".into())));
    }
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        config::{KEYS, ScheduleKind},
    };
    use std::path::Path;

    fn with(sets: &[&str]) -> Result<Config, ConfigError> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::parse("model = \"a/b\"", Path::new("my.toml"), &sets)
    }

    #[test]
    fn a_kind_reads_its_own_keys_with_its_own_defaults() {
        for (kind, decay) in [
            ("adamw", 0.01),
            ("muon", 0.1),
            ("adafactor", 0.0),
            ("lion", 0.0),
            ("schedule-free", 0.0),
        ] {
            let config = with(&[&format!("optimizer.kind={kind}")]).unwrap();
            assert_eq!(config.optimizer.kind.name(), kind);
            assert_eq!(config.optimizer.weight_decay, decay, "{kind}");
            // Checkpoints keep settings as JSON, in which 1e-30 must stay what it is.
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        }
        let lion = with(&["optimizer.kind=lion", "optimizer.beta1=0.95"]).unwrap();
        let expected = LionSettings {
            beta1: 0.95,
            beta2: 0.99,
        };
        assert_eq!(lion.optimizer.kind, OptimizerKind::Lion(expected));
        let muon = with(&["optimizer.kind=muon", "optimizer.nesterov=false"]).unwrap();
        let OptimizerKind::Muon(muon) = muon.optimizer.kind else {
            panic!("{muon:?}");
        };
        assert_eq!((muon.ns_steps, muon.nesterov), (5, false));
        assert_eq!(muon.adjust_lr, AdjustLr::MatchRmsAdamw);
        let free = with(&["optimizer.kind=schedule-free"]).unwrap();
        assert_eq!(free.schedule.kind, ScheduleKind::Constant);
    }

    #[test]
    fn every_key_of_the_section_is_read_by_some_kind() {
        for key in KEYS.iter().filter(|key| key.section == "optimizer") {
            let path = key.path();
            let read = |kind: &Kind| kind.reads.iter().any(|(read, _)| *read == path);
            let known =
                path == "optimizer.kind" || ALWAYS.contains(&&*path) || KINDS.iter().any(read);
            assert!(known, "{path}");
        }
    }

    #[test]
    fn what_a_kind_does_not_read_or_store_is_refused() {
        let kinds = |kind: &'static str| format!("optimizer.kind={kind}");
        for (kind, set, says) in [
            (
                "adamw",
                "optimizer.momentum=0.9",
                "`optimizer.momentum` has no meaning",
            ),
            ("lion", "optimizer.eps=1e-8", "\"lion\""),
            ("adafactor", "optimizer.beta2=0.9", "`optimizer.beta2`"),
            (
                "schedule-free",
                "optimizer.nesterov=true",
                "`optimizer.nesterov`",
            ),
            ("muon", "optimizer.state=8bit", "which stores f32"),
            ("lion", "optimizer.state=8bit", "which stores f32 or bf16"),
            ("schedule-free", "optimizer.beta1=0", "must be above 0"),
            (
                "schedule-free",
                "schedule.kind=linear",
                "takes the place of a decrease",
            ),
            (
                "schedule-free",
                "schedule.min_ratio=0.1",
                "`schedule.min_ratio`",
            ),
        ] {
            let error = with(&[&kinds(kind), set]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for set in ["optimizer.state=bf16", "optimizer.state=f32"] {
            assert!(with(&[set]).is_ok() && with(&[&kinds("lion"), set]).is_ok());
        }
    }
}
