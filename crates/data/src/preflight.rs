//! Report about the data before training.

use std::fmt;

use serde::{Deserialize, Serialize};
use tightrope_packing::Units;

use crate::error::{BadRow, Place};
use crate::options::{Format, TrainOn};
use crate::sets::SetReport;
use crate::store::Sequences;
use crate::template::Dropped;
use tightrope_report::numbers::{counted, grouped, percent_of};

/// Number of skipped rows that are kept with their reasons.
const REASONS: usize = 10;
/// Number of unused keys that are listed; the others are counted together.
const UNUSED_KEYS: usize = 100;

const JOINED_PARTS: &str = "with parts of a message that became one text, a line each: the chat \
    template does not read parts (Transformers would print a list, fail or leave them out)";

/// Report about rows that were read, rows that were left out, and suspicious data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// The files with the format each was read as.
    pub files: Vec<FileReport>,
    /// What an epoch takes of each set, if the data has sets with names.
    pub sets: Vec<SetReport>,
    /// Number of rows found.
    pub rows: u64,
    /// Number of rows left out because they could not be read.
    pub skipped_rows: u64,
    /// The first skipped rows.
    pub skipped: Vec<SkippedRow>,
    /// Number of sequences that training sees.
    pub sequences: u64,
    /// Number of tokens of these sequences.
    pub tokens: u64,
    /// Number of these tokens that are targets.
    pub trained_tokens: u64,
    /// Number of rows without a token, which are left out.
    pub empty_rows: u64,
    /// Number of sequences cut to `max_length`.
    pub truncated_sequences: u64,
    /// Number of tokens lost by these cuts.
    pub truncated_tokens: u64,
    /// Number of rows split into several sequences.
    pub split_rows: u64,
    /// Number of rows left out because they were too long.
    pub dropped_rows: u64,
    /// Number of tokens of these rows.
    pub dropped_tokens: u64,
    /// Number of sequences without a target.
    pub untrained_sequences: u64,
    /// Number of rows that begin with two BOS tokens.
    pub doubled_bos: u64,
    /// Number of rows whose last trained token is no end token (before any cut).
    pub missing_eos: u64,
    /// Number of rows that got the end token because they did not end in one.
    pub added_eos: u64,
    /// Number of texts that got no end token because the chat template ends turns with it.
    pub open_texts: u64,
    /// Whether the tokenizer names no end token.
    pub no_eos: bool,
    /// Number of pairs of answers, if the data has pairs; each is two sequences.
    pub pairs: Option<u64>,
    /// Number of good answers among the sequences, if the answers are labelled.
    pub good_answers: Option<u64>,
    /// Number of pairs left out because both answers are the same (after any cut).
    pub equal_pairs: u64,
    /// Number of pairs left out because an answer has no token (after any cut).
    pub untrained_pairs: u64,
    /// Number of pairs left out because one side was dropped as too long.
    pub halved_pairs: u64,
    /// Number of rows that held several sequences and were taken apart.
    pub packed_rows: u64,
    /// Number of rows with the same tokens and targets as an earlier row.
    pub duplicate_rows: u64,
    /// Length of the longest sequence, before any cut.
    pub longest: u64,
    /// Keys of rows and messages that were not used.
    pub unused: Vec<UnusedKey>,
    /// Number of the assistant's answers in conversations.
    pub answers: u64,
    /// Number of these answers that are trained.
    pub trained_answers: u64,
    /// Number of trained answers and completions without text, which teach the model to end at once.
    pub empty_answers: u64,
    /// Option that selects the trained tokens.
    pub train_on: TrainOn,
    /// Whether sets select other tokens than this.
    #[serde(skip)]
    pub trains_differently: bool,
    /// Contents of conversations that the chat template leaves out.
    pub dropped: Dropped,
    /// Number of rows in which the parts of a message became one text.
    pub joined_parts: u64,
    /// Whether the chat template reads the clock, so that the same data may give other tokens on
    /// another day.
    pub template_reads_clock: bool,
    /// Lengths of the sequences.
    pub lengths: Lengths,
}

/// A file and its layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Path of the file.
    pub path: String,
    /// Format that the file was read as.
    pub format: crate::Format,
    /// Number of rows of the file.
    pub rows: u64,
    /// Index of the set of the file.
    #[serde(skip)]
    pub set: usize,
}

/// A key that has a value in some rows and is used in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedKey {
    /// Name of the key, such as `messages[].name`.
    pub key: String,
    /// Number of rows with the key.
    pub rows: u64,
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRow {
    /// The file.
    pub path: String,
    /// Number of the row, from 1.
    pub row: u64,
    /// Line, from 1, in files of text.
    pub line: Option<u64>,
    /// Column, from 1, in characters.
    pub column: Option<u64>,
    /// Reason why the row was left out.
    pub reason: String,
}

/// Quantiles of sequence lengths (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Length of the shortest sequence.
    pub min: usize,
    /// A quarter of the sequences have at most this length.
    pub p25: usize,
    /// Half of the sequences have at most this length.
    pub p50: usize,
    /// Three quarters of the sequences have at most this length.
    pub p75: usize,
    /// 95 % of the sequences have at most this length.
    pub p95: usize,
    /// 99 % of the sequences have at most this length.
    pub p99: usize,
    /// Length of the longest sequence.
    pub max: usize,
    /// Mean length.
    pub mean: f64,
}

impl Lengths {
    fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        let n = lengths.len();
        if n == 0 {
            return Self::default();
        }
        let quantile = |percent: usize| lengths[(n * percent).div_ceil(100).max(1) - 1] as usize;
        let all: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        Self {
            min: lengths[0] as usize,
            p25: quantile(25),
            p50: quantile(50),
            p75: quantile(75),
            p95: quantile(95),
            p99: quantile(99),
            max: lengths[n - 1] as usize,
            mean: all as f64 / n as f64,
        }
    }
}

impl Preflight {
    pub(crate) fn skip(&mut self, bad: &BadRow) {
        let place = &bad.place;
        self.skipped_rows += 1;
        if self.skipped.len() < REASONS {
            self.skipped.push(SkippedRow {
                path: place.path.display().to_string(),
                row: place.row,
                line: place.line,
                column: place.column,
                reason: bad.problem.to_string(),
            });
        }
    }

    /// Counts a key of a row that was not used.
    pub(crate) fn not_used(&mut self, key: String) {
        let known = self.unused.iter().any(|unused| unused.key == key);
        let key = match known || self.unused.len() < UNUSED_KEYS {
            true => key,
            false => "(other keys)".to_owned(),
        };
        match self.unused.iter_mut().find(|unused| unused.key == key) {
            Some(unused) => unused.rows += 1,
            None => self.unused.push(UnusedKey { key, rows: 1 }),
        }
    }

    /// The unused keys in one line, the first ones by name: `url (12 rows), tags (3 rows)`.
    pub fn unused_keys(&self) -> Option<String> {
        const NAMED: usize = 12;
        let named = self.unused.iter().take(NAMED).map(|unused| {
            // pandas writes its index as a column without a name.
            let key = match unused.key.as_str() {
                "" => "a column without a name",
                key => key,
            };
            format!("{key} ({})", counted(unused.rows, "row"))
        });
        let mut text = named.collect::<Vec<_>>().join(", ");
        if self.unused.len() > NAMED {
            text.push_str(&format!(", and {} more", self.unused.len() - NAMED));
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// Notes for the user before training, of one or a few lines each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: u64, one: &str, what: &str| {
            if count > 0 {
                notes.push(format!("{} {what}", counted(count, one)));
            }
        };
        note(
            self.skipped_rows,
            "row",
            &format!("skipped:{}", self.reasons()),
        );
        note(self.empty_rows, "row", "without a token left out");
        let cut = counted(self.truncated_tokens, "token");
        note(
            self.truncated_sequences,
            "sequence",
            &format!("truncated, {cut} dropped"),
        );
        note(self.split_rows, "row", "split into several sequences");
        let dropped = counted(self.dropped_tokens, "token");
        note(
            self.dropped_rows,
            "row",
            &format!("dropped as too long ({dropped})"),
        );
        note(
            self.untrained_sequences,
            "sequence",
            "without anything to train",
        );
        note(
            self.empty_answers,
            "trained answer",
            "without text: at most an end token is trained there",
        );
        let idle = self
            .sets
            .iter()
            .filter(|set| set.sequences > 0 && set.trained_tokens == 0);
        notes.extend(idle.map(|set| format!("set {}: no token is trained", set.name)));
        let tokens = self.files.iter().any(|file| file.format == Format::Tokens);
        if tokens && self.trained_tokens + self.sequences == self.tokens {
            notes.push("every token is trained: no `labels` and no mask leave any out".to_owned());
        }
        let mut note = |count: u64, one: &str, what: &str| {
            if count > 0 {
                notes.push(format!("{} {what}", counted(count, one)));
            }
        };
        note(self.doubled_bos, "row", "beginning with two BOS tokens");
        let without_end = match self.no_eos {
            true => {
                "without an end token at the end, for the tokenizer names none: the model will not \
                 learn to stop there"
            }
            false => "without an end token at the end: the model will not learn to stop there",
        };
        note(
            self.missing_eos.saturating_sub(self.open_texts),
            "row",
            without_end,
        );
        note(
            self.open_texts,
            "row",
            "of text without an end token at the end, which ends turns in this model's chats: it will \
             not learn to stop there; data.add_end_token = \"always\" adds it",
        );
        note(
            self.equal_pairs,
            "pair",
            "left out: both answers are the same",
        );
        note(
            self.untrained_pairs,
            "pair",
            "left out: an answer has no token to train: it is empty, cut off at data.max_length, or \
             not said by the assistant",
        );
        note(
            self.halved_pairs,
            "pair",
            "left out: one side was dropped as too long",
        );
        note(
            self.packed_rows,
            "row",
            "of several sequences, which are taken apart",
        );
        note(self.duplicate_rows, "row", "the same as one before");
        for (count, what) in self.dropped.notes() {
            note(count, "row", what);
        }
        note(self.joined_parts, "row", JOINED_PARTS);
        notes.extend(self.unused_keys().map(|keys| format!("not used: {keys}")));
        if self.template_reads_clock {
            let clock = "the chat template reads the clock: another day may give other tokens";
            notes.push(clock.to_owned());
        }
        notes
    }

    /// Reasons why rows were skipped, one per line.
    fn reasons(&self) -> String {
        let mut text = String::new();
        for row in &self.skipped {
            let place = Place {
                path: row.path.clone().into(),
                row: row.row,
                line: row.line,
                column: row.column,
            };
            text.push_str(&format!("\n    {place}: {}", row.reason));
        }
        match self.skipped_rows - self.skipped.len() as u64 {
            0 => text,
            more => format!("{text}\n    and {} more", grouped(more)),
        }
    }

    /// Says which answers are trained, if not all are.
    pub fn answers_trained(&self) -> Option<String> {
        let judged = self.pairs.is_some() || self.good_answers.is_some();
        (!judged && self.trained_answers < self.answers).then(|| {
            let (trained, answers) = (self.trained_answers, self.answers);
            let why = match self.train_on {
                _ if self.trains_differently => "",
                TrainOn::Completion => {
                    ": the last of each chat; train_on = \"assistant\" trains all"
                }
                TrainOn::Assistant | TrainOn::All => "",
            };
            format!(
                "{} of {} trained{why}",
                grouped(trained),
                counted(answers, "answer")
            )
        })
    }

    /// Fills in the shares of the sets.
    pub(crate) fn share_out(&mut self) {
        let all: u64 = self.sets.iter().map(|set| set.tokens).sum();
        for set in &mut self.sets {
            set.share = set.tokens as f64 / all.max(1) as f64;
        }
    }

    /// Fills in the values that follow from the sequences.
    pub(crate) fn count(&mut self, sequences: &Sequences) {
        self.sequences = sequences.len() as u64;
        for index in 0..sequences.len() {
            let trained = sequences.trained_tokens(index) as u64;
            self.tokens += sequences.length(index) as u64;
            self.trained_tokens += trained;
            self.untrained_sequences += u64::from(trained == 0);
        }
        self.lengths = Lengths::of(sequences.lengths());
    }
}

/// Describes labelled answers: `7 good and 5 bad answers`.
pub fn verdicts(good: u64, all: u64) -> String {
    let bad = counted(all.saturating_sub(good), "bad answer");
    format!("{} good and {bad}", grouped(good))
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let format = file.format.name();
            let rows = counted(file.rows, "row");
            writeln!(f, "{}: {rows}, read as {format}", file.path)?;
        }
        for set in self.sets.iter().filter(|set| set.taken > 0) {
            writeln!(f, "{set}")?;
        }
        if let Some(pairs) = self.pairs {
            write!(f, "{} of answers, ", counted(pairs, "pair"))?;
        }
        if let Some(good) = self.good_answers {
            write!(f, "{}, ", verdicts(good, self.sequences))?;
        }
        writeln!(
            f,
            "{}, {}, {} trained ({})",
            counted(self.sequences, "sequence"),
            counted(self.tokens, "token"),
            grouped(self.trained_tokens),
            percent_of(self.trained_tokens, self.tokens)
        )?;
        let l = &self.lengths;
        write!(
            f,
            "lengths: min {}, 25 % {}, median {}, 75 % {}, 95 % {}, 99 % {}, max {}, mean {:.1}",
            l.min, l.p25, l.p50, l.p75, l.p95, l.p99, l.max, l.mean
        )?;
        if self.longest > l.max as u64 {
            write!(f, "; {} before the cut", self.longest)?;
        }
        if self.added_eos > 0 {
            write!(f, "\nend token added to {}", counted(self.added_eos, "row"))?;
        }
        let mut notes = self.answers_trained().into_iter().chain(self.notes());
        notes.try_for_each(|note| write!(f, "\n{note}"))
    }
}
