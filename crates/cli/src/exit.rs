//! Exit codes: the one place where they are chosen and documented.

use std::{io, process::ExitCode};
use tightrope_train::STOPPED_EXIT_CODE;

/// Shown by `tightrope --help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    failed, with the reason on standard error, or a check that did not pass
  2    wrong usage of the command line
  75   interrupted by SIGINT or SIGTERM, everything saved: the same command with --resume goes on
  130  stopped at once by a second SIGINT; 143 by a second SIGTERM";

/// How a command that did not fail has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for is done.
    Success,
    /// A check has found what it was looking for: something is wrong.
    Failed,
    /// Interrupted, and everything is saved.
    Saved,
}

/// The exit code of a command's result; reports its error on standard error.
pub fn code(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Success) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::FAILURE,
        Ok(Exit::Saved) => ExitCode::from(STOPPED_EXIT_CODE),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let label = console::style("error:").for_stderr().red().bold();
            eprintln!("{label} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output left (`tightrope … | head`), which is its right.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let left = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert!(is_broken_pipe(&left.unwrap_err()));
        let full = Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)).context("writing");
        assert!(!is_broken_pipe(&full.unwrap_err()));
    }
}
