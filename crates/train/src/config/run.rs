//! The section `[run]`.

use serde::{Deserialize, Serialize};

/// `[run]`; either `max_steps` or `epochs` is present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct RunSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
    pub save_every: u64,
    pub keep: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    pub result: RunResult,
    pub recompute: bool,
    pub neftune_noise_alpha: f64,
}

/// Weights that are the result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum RunResult {
    Best,
    Last,
}
