//! `[lora]`, and what it says about an adapter.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tightrope_model::LoraConfig;

/// `[lora]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct LoraSection {
    pub r: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub target_modules: TargetModules,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<ModuleNames>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rank_pattern: Vec<(String, usize)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpha_pattern: Vec<(String, f64)>,
    pub bias: TrainedBiases,
    pub modules_to_save: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable_token_indices: Option<TokenIndices>,
    pub ensure_weight_tying: bool,
    pub rslora: bool,
    pub dora: bool,
    pub init: InitialFactors,
    pub quantize: Quantize,
    pub lora_plus_ratio: f64,
}

/// Initial values of the factors of a new adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum InitialFactors {
    Random,
    Pissa,
    Olora,
    Loftq,
}

/// Storage of frozen weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum Quantize {
    None,
    Nf4,
}

/// Selects the linear layers that get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// `"all-linear"`: every linear layer but the head.
    AllLinear(AllLinear),
    /// The named layers.
    Named(ModuleNames),
}

/// Names of modules, or an expression for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModuleNames {
    /// Modules by the ends of their names.
    List(Vec<String>),
    /// Modules whose whole name a regular expression matches.
    Expression(String),
}

/// The word `all-linear`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllLinear {
    /// The word itself.
    #[serde(rename = "all-linear")]
    AllLinear,
}

/// Rows of tables that are trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Of the embedding, and of a head that is the embedding.
    Embedding(Vec<u32>),
    /// By the end of the module's name.
    ByModule(BTreeMap<String, Vec<u32>>),
}

/// Biases that are trained beside an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum TrainedBiases {
    None,
    All,
    LoraOnly,
}

impl From<&ModuleNames> for tightrope_model::ModuleNames {
    fn from(names: &ModuleNames) -> Self {
        match names {
            ModuleNames::List(names) => Self::List(names.clone()),
            ModuleNames::Expression(expression) => Self::Expression(expression.clone()),
        }
    }
}

impl From<&LoraSection> for LoraConfig {
    fn from(section: &LoraSection) -> Self {
        Self {
            r: section.r,
            alpha: section.alpha,
            dropout: section.dropout as f32,
            target_modules: match &section.target_modules {
                TargetModules::AllLinear(_) => tightrope_model::TargetModules::AllLinear,
                TargetModules::Named(names) => tightrope_model::TargetModules::Named(names.into()),
            },
            exclude_modules: section.exclude_modules.as_ref().map(Into::into),
            layers: section.layers.clone(),
            rank_pattern: section.rank_pattern.clone(),
            alpha_pattern: section.alpha_pattern.clone(),
            rslora: section.rslora,
            dora: section.dora,
            init: match section.init {
                InitialFactors::Random => tightrope_model::InitialFactors::Random,
                InitialFactors::Pissa => tightrope_model::InitialFactors::Pissa,
                InitialFactors::Olora => tightrope_model::InitialFactors::Olora,
                InitialFactors::Loftq => tightrope_model::InitialFactors::Loftq,
            },
            bias: match section.bias {
                TrainedBiases::None => tightrope_model::TrainedBiases::None,
                TrainedBiases::All => tightrope_model::TrainedBiases::All,
                TrainedBiases::LoraOnly => tightrope_model::TrainedBiases::LoraOnly,
            },
            modules_to_save: section.modules_to_save.clone(),
            trainable_token_indices: section.trainable_token_indices.clone().map(|of| match of {
                TokenIndices::Embedding(ids) => tightrope_model::TokenIndices::Embedding(ids),
                TokenIndices::ByModule(modules) => {
                    tightrope_model::TokenIndices::ByModule(modules.into_iter().collect())
                }
            }),
            ensure_weight_tying: section.ensure_weight_tying,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use std::path::Path;

    #[test]
    fn patterns_keep_their_order_and_their_places() {
        let text = "model = \"a/b\"\n[lora]\ntarget_modules = \".*_proj\"\nlayers = [1, 0]\n\
                    alpha_pattern = { z = 2, a = 1.5 }\nmodules_to_save = [\"norm\"]\n\
                    bias = \"lora_only\"\n[lora.rank_pattern]\n\"z.*\" = 3\na = 4\n";
        let config = Config::parse(text, Path::new("/etc/runs/my.toml"), &[]).unwrap();
        let lora = config.lora.unwrap();
        let expression = TargetModules::Named(ModuleNames::Expression(".*_proj".into()));
        assert_eq!(lora.target_modules, expression);
        assert_eq!(lora.rank_pattern, [("z.*".into(), 3), ("a".into(), 4)]);
        assert_eq!(lora.alpha_pattern, [("z".into(), 2.0), ("a".into(), 1.5)]);
        assert_eq!(
            (lora.layers, lora.bias),
            (vec![1, 0], TrainedBiases::LoraOnly)
        );
        assert_eq!(lora.modules_to_save, ["norm"]);
        let line = |key: &str| config.places.of(key).unwrap().to_string();
        assert_eq!(line("lora.rank_pattern.a"), "/etc/runs/my.toml:10");
        assert_eq!(line("lora.alpha_pattern.z"), "/etc/runs/my.toml:5");
    }
}
