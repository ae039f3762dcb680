//! One file for each command: `Args` (what clap parses) and `run`.
//!
//! A new command is a file here, a variant of `Command` in `cli.rs`, and a line in the README.

pub mod chat;
pub mod completions;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod man;
pub mod merge;
pub mod pack;
pub mod train;
pub mod verify;
