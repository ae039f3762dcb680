//! The training loop: configuration, batches, optimizer, schedule, checkpoints, metrics.
#![doc = include_str!("../README.md")]
//!
//! ```text
//! Config --source--> Model, Dataset --batches--> Batch --Trainer--> metrics.jsonl, checkpoints, RunReport
//! ```
//!
//! This crate prints nothing: it reports events to an [`Observer`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ask;
pub mod batches;
pub mod checkpoint;
pub mod config;
pub mod demo;
mod device;
mod diagnosis;
mod error;
mod evaluate;
mod files;
mod fingerprint;
mod generate;
pub mod lengths;
mod lock;
mod merge;
mod metrics;
mod objective;
mod observer;
mod optimizer;
mod output;
pub mod paths;
mod prepared;
mod rank;
mod report;
mod sampler;
mod schedule;
mod session;
pub mod source;
mod stop;
mod stored;
mod tokenizer;
mod trainer;
mod verify;

pub use ask::{Answerer, evaluate_config, verify_config};
pub use config::Config;
pub use device::{Chosen, choose};
pub use error::TrainError;
pub use evaluate::evaluate;
pub use generate::{End, Generation, Prompt, generate};
pub use lock::OutputLock;
pub use merge::{MergeError, MergeOptions, merge};
pub use metrics::{EvalRow, Metrics, StepRow, peak_memory_bytes};
pub use observer::{AdapterPlan, Observer, Plan};
pub use optimizer::{Optimizer, StatePlan, gradient_norm};
pub use output::{Output, RunOptions};
pub use prepared::Prepared;
pub use report::{Evaluation, Outcome, Padding, RunReport};
pub use sampler::Sampling;
pub use schedule::Schedule;
pub use session::{Base, load_options, train, training};
pub use stop::{STOPPED_EXIT_CODE, StopFlag};
pub use stored::StoredPackingError;
pub use tightrope_device::DType;
pub use trainer::Trainer;
pub use verify::{Check, Verification, verify};
