//! The training loop: configuration, batches, optimizer, schedule, checkpoints, metrics.
//!
//! ```text
//! Config --source--> Model, Dataset --batches--> Batch --Trainer--> metrics.jsonl, checkpoints, RunReport
//! ```
//!
//! Nothing here prints: what happens is told to an [`Observer`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![expect(
    dead_code,
    reason = "the step loop that uses it follows with the model"
)]

pub mod batches;
pub mod checkpoint;
pub mod config;
mod error;
mod files;
mod lock;
mod metrics;
mod observer;
mod output;
mod prepared;
mod random;
mod report;
mod sampler;
mod schedule;
pub mod source;
mod stop;

pub use config::Config;
pub use error::TrainError;
pub use lock::OutputLock;
pub use metrics::{EvalRow, Metrics, StepRow, peak_memory_bytes};
pub use observer::{Observer, Plan};
pub use output::{Output, RunOptions};
pub use prepared::Prepared;
pub use report::{Evaluation, Outcome, Padding, RunReport};
pub use sampler::Sampling;
pub use schedule::Schedule;
pub use stop::{STOPPED_EXIT_CODE, StopFlag};
