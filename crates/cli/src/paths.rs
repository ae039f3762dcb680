//! Paths on the command line, with the rules of configurations.

use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::{Path, PathBuf};
use tightrope_train::paths;

/// A path with `~` for the home folder, even if no shell has replaced it (`--to=~/m`).
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| paths::join(Path::new(""), &path))
}
