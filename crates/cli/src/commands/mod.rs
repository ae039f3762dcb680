//! One file for each command, with `Args` (parsed by clap) and `run`.
//!
//! A new command is a file here, a variant of `Command` in `cli/mod.rs`, and a line in
//! docs/commands.md.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod train;
pub(crate) mod verify;
