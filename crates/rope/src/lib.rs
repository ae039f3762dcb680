//! Rotary position embeddings: frequencies, scalings, and tables of cosines and sines.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod embedding;
mod error;
mod frequencies;

pub use config::{RopeConfig, Scaling, Yarn};
pub use embedding::RotaryEmbedding;
pub use error::RopeError;
