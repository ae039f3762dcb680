//! What is around the training loop: finding a model, choosing a device, running a configuration,
//! and using a model that was trained.
#![doc = include_str!("../README.md")]
//!
//! ```text
//! Config --source--> Base --choose--> device, model --train--> RunReport
//!                                                   --evaluate, verify, generate, merge, export--> results
//! ```
//!
//! This crate prints nothing: it reports events to an observer.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ask;
pub mod demo;
mod device;
mod error;
mod export;
mod fingerprint;
mod generate;
pub mod lengths;
mod merge;
mod new_tokens;
mod plan;
mod sampler;
mod session;
pub mod source;
mod tokenizer;
mod tokens;
mod verify;

pub use ask::{Answerer, evaluate_config, verify_config};
pub use device::{Chosen, choose};
pub use error::RunError;
pub use export::{ExportError, ExportOptions, Exported, FORMATS, Format, export};
pub use generate::{End, Generation, Prompt, generate};
pub use merge::{MergeError, MergeOptions, merge};
pub use plan::{Available, Memory, Needs, Planner, Speed};
pub use sampler::Sampling;
pub use session::{Base, train};
pub use tightrope_device::DType;
pub use tightrope_model::Combination;
pub use verify::{Check, Verification, verify};
