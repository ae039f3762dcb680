//! One file for each command: `Args` (what clap parses) and `run`.
//!
//! A new command is a file here, a variant of `Command` in `cli.rs`, and a line in the README.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod eval;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod pack;
pub(crate) mod train;
pub(crate) mod verify;
