//! The configuration file: its sections as types, reading it, and rules between keys.

mod batch;
mod data;
mod elsewhere;
mod error;
mod keys;
mod kinds;
mod lora;
mod model;
mod objective;
mod optimizer;
mod packing;
mod read;
mod run;
mod schedule;
mod sets;
mod suggestion;
mod template;
mod tokens;

pub(crate) use batch::counts_sequences;
pub use data::{CacheChoice, DataSection};
pub use error::ConfigError;
pub use keys::{KEYS, Key, Kind, OnResume, SECTIONS, SET_KEYS};
pub use lora::{
    AllLinear, InitialFactors, LoraSection, ModuleNames, Quantize, TargetModules, TokenIndices,
    TrainedBiases,
};
pub use model::{load_options, training};
pub use objective::{Convention, ObjectiveKind, ObjectiveSection, Reference};
pub use optimizer::{
    AdafactorSettings, AdamwSettings, AdjustLr, LionSettings, MuonSettings, OptimizerKind,
    OptimizerSection, OptimizerState, ScheduleFreeSettings,
};
pub use packing::PackingSection;
pub use read::{Place, Places};
pub use run::{RunResult, RunSection};
pub use schedule::{DecayShape, ScheduleKind, ScheduleSection};
pub use sets::SetSection;
pub use template::{default_toml, reference_markdown};
pub use tokens::{TokenStart, TokensSection};

use read::{Text, Values};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_data::DataOptions;
use tightrope_model::BaseStorage;
use tightrope_packing::{Algorithm, Layout};
use toml::{Table, Value};

/// All settings of a run.
///
/// [`KEYS`] has the meaning of each key, its default, and whether it may change on resuming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct Config {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    pub output: PathBuf,
    pub device: DeviceChoice,
    pub precision: PrecisionChoice,
    pub seed: u64,
    #[serde(default)]
    pub tokens: TokensSection,
    pub data: DataSection,
    pub objective: ObjectiveSection,
    pub packing: PackingSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    pub batch: BatchSection,
    pub optimizer: OptimizerSection,
    pub schedule: ScheduleSection,
    pub run: RunSection,
    /// Places of the keys in the text, for errors that show only once the model is known.
    #[serde(skip)]
    pub places: Places,
}

/// Device that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
}

/// Type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum PrecisionChoice {
    Auto,
    F32,
    Bf16,
}

/// `[batch]`; exactly one of the first two keys is present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct BatchSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packs_per_step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences_per_step: Option<usize>,
    pub accumulation: usize,
}

impl Config {
    /// Reads the file and applies `sets` to it: `key=value` with the value in TOML, where text
    /// needs no quotes. Paths in the file are relative to its folder; paths in `sets` are relative
    /// to the current folder.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let other = |what| ConfigError::OtherKind {
            path: path.to_owned(),
            what,
        };
        if path.is_dir() {
            return Err(other(A_MODEL));
        }
        let bytes = fs::read(path).map_err(|source| ConfigError::Io {
            path: path.to_owned(),
            source,
        })?;
        if let Some(what) = other_kind(&bytes) {
            return Err(other(what));
        }
        let text = String::from_utf8(bytes).map_err(|_| other("this is no text"))?;
        Self::parse(&text, path, sets)
    }

    /// The same for text that is (or would be) the contents of the file `path`.
    pub fn parse(text: &str, path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let mut values = Values::default();
        values.read(&Text {
            text,
            path: Some(path),
            base: path.parent().unwrap_or(Path::new("")),
        })?;
        for set in sets {
            values.read(&Text {
                text: &assignment(set)?,
                path: None,
                base: Path::new(""),
            })?;
        }
        finish(values, path)
    }

    /// Storage of frozen weights.
    pub fn base_storage(&self) -> BaseStorage {
        match self.lora.as_ref().map(|lora| lora.quantize) {
            Some(Quantize::Nf4) => BaseStorage::Nf4,
            Some(Quantize::None) | None => BaseStorage::AsStored,
        }
    }

    /// Options that decide how records become sequences.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            format: self.data.format,
            columns: self.data.columns.clone(),
            max_length: self.data.max_length,
            overlong: self.data.overlong,
            train_on: self.data.train_on,
            add_end_token: self.data.add_end_token,
            on_bad_row: self.data.on_bad_row,
            max_row_bytes: self.data.max_row_bytes,
            chat_template: self.data.chat_template.clone(),
        }
    }

    /// Every key with a value, by its path, in the order of [`KEYS`].
    pub fn entries(&self) -> Vec<(&'static Key, serde_json::Value)> {
        let all = serde_json::to_value(self).unwrap_or_default();
        let value = |key: &Key| match key.section {
            "" => all.get(key.name).cloned(),
            section => all.get(section)?.get(key.name).cloned(),
        };
        KEYS.iter()
            .filter_map(|key| Some((key, value(key)?)))
            .collect()
    }
}

const A_MODEL: &str = "this may be a model: write model = \"…\" in the configuration";

/// Kind of a file that starts as no TOML file does.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    let inner = text.strip_prefix(b"[").unwrap_or(text).trim_ascii_start();
    if bytes.starts_with(b"GGUF") {
        return Some(A_MODEL);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("this is UTF-16: write it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)");
    }
    if inner.starts_with(b"{") {
        return Some("this is JSON: write train = \"…\" under [data] in the configuration");
    }
    is_yaml(text)
        .then_some("this is YAML: `tightrope train --template` shows how keys are written here")
}

/// Whether the first line that says something is `key: value` or `---`, which is no TOML.
fn is_yaml(text: &[u8]) -> bool {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines
        .into_iter()
        .find(|line| !line.is_empty() && line[0] != b'#');
    first.is_some_and(|line| {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        let name = line.iter().take_while(|byte| is_name(byte)).count();
        let value = &line[name..];
        line == b"---" || (name > 0 && (value == b":" || value.starts_with(b": ")))
    })
}

/// `key=value` as TOML, with quotes around unquoted text.
fn assignment(set: &str) -> Result<String, ConfigError> {
    let (name, value) = set.split_once('=').ok_or_else(|| ConfigError::Set {
        text: set.to_owned(),
    })?;
    let (name, value) = (name.trim(), value.trim());
    // A value of another kind than its key expects is reported by key, and not as a syntax error.
    let is_toml = toml::de::DeValue::parse(value).is_ok();
    Ok(match !is_toml {
        true => format!("{name} = {}", Value::String(value.to_owned())),
        false => format!("{name} = {value}"),
    })
}

/// Fills in the defaults that depend on other keys, and checks the rules between keys.
fn finish(values: Values, path: &Path) -> Result<Config, ConfigError> {
    let start = || Place::File {
        path: path.to_owned(),
        line: 1,
    };
    let conflict = |key: &str, message: String| {
        let place = values.place(key).cloned();
        let place = place.unwrap_or_else(start);
        ConfigError::Conflict { place, message }
    };
    for (one, other) in [
        ("run.max_steps", "run.epochs"),
        ("schedule.warmup_steps", "schedule.warmup_ratio"),
        ("schedule.decay_steps", "schedule.decay_ratio"),
    ] {
        if values.get(one).is_some() && values.get(other).is_some() {
            let message = format!("`{one}` and `{other}` say the same thing twice; remove one");
            return Err(conflict(other, message));
        }
    }
    let share = |key| values.get(key).and_then(Value::as_float).unwrap_or(0.0);
    let [warmup, decay] = ["schedule.warmup_ratio", "schedule.decay_ratio"].map(share);
    if warmup + decay > 1.0 {
        let message = format!(
            "`schedule.warmup_ratio` = {warmup} and `schedule.decay_ratio` = {decay} are more than the \
             whole run"
        );
        return Err(conflict("schedule.decay_ratio", message));
    }
    let weight = |key| values.get(key).and_then(Value::as_float) == Some(0.0);
    if weight("objective.desirable_weight") && weight("objective.undesirable_weight") {
        let message = "`objective.desirable_weight` = 0 and `objective.undesirable_weight` = 0 train \
                       nothing";
        return Err(conflict("objective.undesirable_weight", message.into()));
    }
    if values.get("model").is_none() {
        return Err(ConfigError::Missing {
            path: path.to_owned(),
            key: "model",
            help: "write model = \"path or hub id\" at the top of the configuration",
        });
    }

    tokens::check(&values)?;

    let mode = values.get("packing.mode").and_then(Value::as_str);
    let mode: Algorithm = mode.and_then(|mode| mode.parse().ok()).unwrap_or_default();
    let integer = |key: &str| values.get(key).and_then(Value::as_integer);
    // A pair of answers is packed whole.
    let sides = if objective::kind(&values).compares() {
        2
    } else {
        1
    };
    let max_length = integer("data.max_length");
    let capacity = integer("packing.capacity").unwrap_or_else(|| {
        let longest = max_length.unwrap_or(0).saturating_mul(sides);
        longest.max(DEFAULT_CAPACITY)
    });
    let max_length = max_length.unwrap_or((capacity / sides).max(1));
    if sides == 2 && max_length.saturating_mul(2) > capacity {
        let message = format!(
            "pairs of answers of up to `data.max_length` = {max_length} tokens each do not fit into \
             `packing.capacity` = {capacity}; raise the capacity or lower the length"
        );
        return Err(conflict("packing.capacity", message));
    }
    if mode.layout() == Layout::Packed && !mode.cuts_sequences() && max_length > capacity {
        let message = format!(
            "sequences of up to `data.max_length` = {max_length} tokens do not fit into packs of \
             `packing.capacity` = {capacity}; raise the capacity or lower the length"
        );
        return Err(conflict("packing.capacity", message));
    }

    let size = batch::size(&values, mode)?;
    let files = values.get("data.eval").and_then(Value::as_array);
    let files = files.is_some_and(|files| !files.is_empty());
    let ratio = values.get("data.eval_ratio").and_then(Value::as_float);
    let ratio = ratio.is_some_and(|ratio| ratio > 0.0);
    if files && ratio {
        let message =
            "evaluate on `data.eval` or on the share `data.eval_ratio`; remove one".into();
        return Err(conflict("data.eval_ratio", message));
    }
    let evaluates = files || ratio;
    for key in ["run.eval_every", "run.patience"] {
        if values.get(key).is_some() && !evaluates {
            let message = format!(
                "`{key}` needs something to evaluate on; set `data.eval` or `data.eval_ratio`"
            );
            return Err(conflict(key, message));
        }
    }
    if values.get("run.patience").is_some() && values.get("run.eval_every").is_none() {
        let message = "`run.patience` counts evaluations; set `run.eval_every` too".into();
        return Err(conflict("run.patience", message));
    }

    let patient = values.get("run.patience").is_some();
    let result = if patient { "best" } else { "last" };
    let best = values.get("run.result").and_then(Value::as_str) == Some("best");
    if best && !evaluates {
        let message = "`run.result` = \"best\" needs something to evaluate on; set `data.eval` or \
                       `data.eval_ratio`";
        return Err(conflict("run.result", message.into()));
    }

    let text = |key: &str| values.get(key).and_then(Value::as_str);
    let message = match (text("lora.init"), text("lora.quantize") == Some("nf4")) {
        (Some("pissa" | "olora"), true) => {
            "`lora.init` takes a part out of the weights, which weights in NF4 cannot lose; use \
             `lora.init` = \"loftq\" or \"random\" with `lora.quantize`"
        }
        (Some("loftq"), false) => {
            "`lora.init` = \"loftq\" makes up for what NF4 loses of the weights; set `lora.quantize` = \
             \"nf4\" too"
        }
        _ => "",
    };
    if !message.is_empty() {
        return Err(conflict("lora.init", message.into()));
    }

    // An adapter to continue from is trained as one.
    let lora = values.has_section("lora") || values.get("adapter").is_some();
    let learning_rate = if lora { 2e-4 } else { 2e-5 };
    let stem = path.file_stem().unwrap_or("run".as_ref());
    let output = path.with_file_name("runs").join(stem);
    let of_objective = objective::derived(&values)?;
    let of_optimizer = optimizer::derived(&values)?;
    let usual = of_optimizer.iter().find(|(key, _)| *key == "schedule.kind");
    let usual = usual.and_then(|(_, kind)| kind.as_str());
    let of_schedule = schedule::derived(&values, usual)?;
    let of_kinds = [of_objective, of_optimizer, of_schedule].concat();
    let derived = [
        ("output", Value::String(output.to_string_lossy().into())),
        ("data.max_length", Value::Integer(max_length)),
        packing::share_prefix(&values, mode)?,
        ("packing.capacity", Value::Integer(capacity)),
        size,
        ("optimizer.learning_rate", Value::Float(learning_rate)),
        ("schedule.warmup_ratio", Value::Float(0.03)),
        ("run.epochs", Value::Float(1.0)),
        ("run.result", Value::String(result.into())),
    ];
    let given = |key: &str| values.get(key).is_some();
    // The other key of a pair says it already.
    let said = |key: &str| match key {
        "schedule.warmup_ratio" => given("schedule.warmup_steps"),
        "schedule.decay_ratio" => given("schedule.decay_steps"),
        "run.epochs" => given("run.max_steps"),
        _ => false,
    };
    let derived = derived.into_iter().chain(of_kinds);
    let derived = derived.filter(|(key, _)| !said(key));
    let derived: Vec<_> = derived.filter(|(key, _)| !given(key)).collect();

    let places = values.places();
    let mut table = values.into_table(if lora { &[] } else { &["lora"] });
    for (key, value) in derived {
        match key.split_once('.') {
            None => table.insert(key.to_owned(), value),
            Some((section, name)) => table
                .get_mut(section)
                .and_then(Value::as_table_mut)
                .and_then(|section| section.insert(name.to_owned(), value)),
        };
    }
    // Every value was checked above, so an error here is a fault of the program; it still causes no
    // panic.
    let config: Config = Table::try_into(table).map_err(|error| ConfigError::Syntax {
        place: start(),
        message: error.to_string(),
    })?;
    Ok(Config { places, ..config })
}

const DEFAULT_CAPACITY: i64 = 2048;

#[cfg(test)]
mod tests;
