//! Sets of files: each has its own options, and says how often its records are taken.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::DataOptions;
use tightrope_report::numbers::{counted, grouped, percent};

/// Files that are read with the same options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileSet {
    /// Name for reports and metrics; sets that have neither names nor amounts are not counted by
    /// themselves.
    pub name: Option<String>,
    /// The files.
    pub paths: Vec<PathBuf>,
    /// Options of the files.
    pub options: DataOptions,
    /// How often records are taken.
    pub amount: Amount,
}

/// How often the records of a set are taken in an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Each record so often: 0.5 takes half of them, 2.5 all twice and half of them once more.
    Weight(f64),
    /// So many records, each as often as the others or once more.
    Samples(u64),
}

impl Default for Amount {
    fn default() -> Self {
        Amount::Weight(1.0)
    }
}

impl Amount {
    /// Number of records that are taken of this many.
    pub(crate) fn of(self, records: usize) -> usize {
        match self {
            _ if records == 0 => 0,
            Amount::Weight(weight) => (records as f64 * weight).round() as usize,
            Amount::Samples(samples) => usize::try_from(samples).unwrap_or(usize::MAX),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Weight(weight) => write!(f, "weight {weight}"),
            Amount::Samples(samples) => write!(f, "samples {}", grouped(*samples)),
        }
    }
}

/// What an epoch takes of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetReport {
    /// Name of the set.
    pub name: String,
    /// How often its records are taken.
    #[serde(skip)]
    pub amount: Amount,
    /// Number of its records.
    pub records: u64,
    /// Number of records that an epoch takes, repeated ones counted each time.
    pub taken: u64,
    /// Number of their sequences.
    pub sequences: u64,
    /// Number of tokens of these sequences.
    pub tokens: u64,
    /// Number of these tokens that are targets.
    pub trained_tokens: u64,
    /// These tokens as a share of those of all sets.
    pub share: f64,
}

impl SetReport {
    /// Empty reports about sets; none if they have neither names nor amounts.
    pub(crate) fn of_all(sets: &[FileSet]) -> Vec<Self> {
        let plain = |set: &FileSet| set.name.is_none() && set.amount == Amount::default();
        if sets.iter().all(plain) {
            return Vec::new();
        }
        let report = |(index, set): (usize, &FileSet)| Self {
            name: set
                .name
                .clone()
                .unwrap_or_else(|| format!("set {}", index + 1)),
            amount: set.amount,
            records: 0,
            taken: 0,
            sequences: 0,
            tokens: 0,
            trained_tokens: 0,
            share: 0.0,
        };
        sets.iter().enumerate().map(report).collect()
    }

    /// Adds a sequence of this length, with so many trained tokens.
    pub(crate) fn count(&mut self, length: usize, trained: usize) {
        self.sequences += 1;
        self.tokens += length as u64;
        self.trained_tokens += trained as u64;
    }

    /// A number that follows from the name (FNV-1a).
    pub(crate) fn key(&self) -> u64 {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
    }
}

impl fmt::Display for SetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if self.amount != Amount::default() {
            write!(
                f,
                "{} of {}, ",
                self.amount,
                counted(self.records, "record")
            )?;
        }
        write!(
            f,
            "{}, {}, {} ({} of all)",
            counted(self.taken, "record"),
            counted(self.sequences, "sequence"),
            counted(self.tokens, "token"),
            percent(self.share)
        )
    }
}
