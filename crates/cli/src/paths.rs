//! Paths on the command line, with the rules of configurations.

use clap::{
    Arg, Command, Error,
    builder::{PathBufValueParser, TypedValueParser},
    error::ErrorKind,
};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};
use tightrope_train::paths;

/// A path with `~` for the home folder, even if no shell has replaced it (`--to=~/m`). Addresses
/// are refused.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    Parser
}

#[derive(Clone)]
struct Parser;

impl TypedValueParser for Parser {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, Error> {
        if let Some(advice) = paths::address(&value.to_string_lossy()) {
            // Clap's own words repeat the value, in which there may be a password.
            let error = Error::raw(ErrorKind::ValueValidation, format!("{advice}\n"));
            return Err(error.with_cmd(command));
        }
        let path = PathBufValueParser::new().parse_ref(command, argument, value)?;
        Ok(paths::join(Path::new(""), &path))
    }
}
