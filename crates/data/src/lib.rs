//! Turns records into chat templates, tokens and targets.
#![doc = include_str!("../README.md")]
//!
//! ```text
//! file --source--> row --record--> record --template--> text --tokenizer--> Sequence{tokens, targets}
//! ```
//!
//! [`load`] does everything; [`Tokenizer`] and [`ChatTemplate`] can be used alone as well.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod advice;
mod columns;
mod dataset;
pub mod demo;
mod detect;
mod encode;
mod error;
mod examples;
mod guard;
mod inspect;
mod key_path;
mod load;
mod options;
mod preflight;
mod progress;
mod record;
mod sets;
mod shared;
mod source;
mod store;
mod template;
mod tokenizer;

/// The packing crate, for callers that depend on this crate alone.
pub use tightrope_packing as packing;
/// Treatment of overlong sequences, which this crate applies to `max_length` and packing applies to
/// the capacity.
pub use tightrope_packing::Overlong;

pub use columns::Columns;
pub use dataset::{Dataset, Origin};
pub use error::{BadRow, DataError, Key, KeyPath, Place, RowProblem};
pub use examples::{ExampleKind, Examples};
pub use inspect::{InspectedToken, inspect};
pub use load::{load, load_for, load_into, load_sets};
pub use options::{AddEndToken, DataOptions, Format, OnBadRow, TrainOn};
pub use preflight::{FileReport, Lengths, Preflight, SkippedRow, UnusedKey, verdicts};
pub use progress::Progress;
pub use sets::{Amount, FileSet, SetReport};
pub use shared::Shared;
#[doc(hidden)]
pub use store::with_digest;
pub use store::{SequenceWriter, Sequences};
pub use template::{ChatTemplate, ChatTemplates, Dropped, RenderError, Rendered, Turn, Variables};
pub use tightrope_formats::gguf::GgufTokenizer;
pub use tokenizer::{DecodeStream, Token, Tokenizer};
