//! The section `[data]`.

use super::SetSection;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tightrope_data::{AddEndToken, Columns, Format, OnBadRow, Overlong, TrainOn};

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub struct DataSection {
    pub train: Vec<SetSection>,
    pub eval: Vec<SetSection>,
    pub eval_ratio: f64,
    pub format: Format,
    pub columns: Columns,
    pub max_length: usize,
    pub overlong: Overlong,
    pub train_on: TrainOn,
    pub add_end_token: AddEndToken,
    pub on_bad_row: OnBadRow,
    pub max_row_bytes: usize,
    pub cache: CacheChoice,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

impl DataSection {
    /// Paths of all files of some sets.
    pub fn paths(sets: &[SetSection]) -> Vec<PathBuf> {
        sets.iter().flat_map(|set| set.path.clone()).collect()
    }
}

/// Place where tokens are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[allow(missing_docs, reason = "the table of keys documents each field")]
pub enum CacheChoice {
    Auto,
    Off,
    Folder(PathBuf),
}

impl From<String> for CacheChoice {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "off" => Self::Off,
            _ => Self::Folder(text.into()),
        }
    }
}

impl From<CacheChoice> for String {
    fn from(choice: CacheChoice) -> Self {
        match choice {
            CacheChoice::Auto => "auto".to_owned(),
            CacheChoice::Off => "off".to_owned(),
            CacheChoice::Folder(path) => path.to_string_lossy().into_owned(),
        }
    }
}
