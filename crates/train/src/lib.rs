//! The training loop: configuration, batches, optimizer, schedule, checkpoints, metrics.
#![doc = include_str!("../README.md")]
//!
//! ```text
//! Config, Dataset --batches--> Batch --Trainer--> metrics.jsonl, checkpoints, RunReport
//! ```
//!
//! This crate prints nothing: it reports events to an [`Observer`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod batches;
pub mod checkpoint;
pub mod config;
mod diagnosis;
mod error;
pub mod estimate;
mod evaluate;
mod files;
mod lock;
mod metrics;
mod objective;
mod observer;
mod optimizer;
mod output;
pub mod paths;
mod prepared;
mod rank;
mod report;
mod schedule;
mod stop;
mod stored;
mod trainer;

pub use config::{Config, load_options, training};
pub use error::TrainError;
pub use evaluate::{evaluate, evaluate_sets};
pub use lock::OutputLock;
pub use metrics::{EvalRow, Metrics, StepRow, peak_memory_bytes};
pub use objective::{Rewards, Weighed};
pub use observer::{AdapterPlan, Observer, Plan};
pub use optimizer::{Optimizer, StatePlan, gradient_norm, state_bytes};
pub use output::{Output, RunOptions};
pub use prepared::Prepared;
pub use report::{Evaluation, Outcome, Padding, RunReport};
pub use schedule::Schedule;
pub use stop::{STOPPED_EXIT_CODE, StopFlag};
pub use stored::StoredPackingError;
pub use trainer::Trainer;
