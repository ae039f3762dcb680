//! Exit codes, which are chosen and documented only here.

use crate::{message, terminal};
use std::{io, process::ExitCode};
use tightrope_train::STOPPED_EXIT_CODE;

/// Text for `tightrope --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed, with the reason on standard error, or a check that did not pass
  2    wrong usage of the command line
  75   interrupted by SIGINT, SIGTERM or SIGHUP, everything saved: the same
       command with --resume goes on
  129, 130, 143
       ended at once by SIGHUP, SIGINT or SIGTERM: before a run began, or by a
       second signal";

/// Result of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything requested is done.
    Success,
    /// A check found a problem.
    Failed,
    /// The run was interrupted, and everything is saved.
    Saved,
}

/// Exit code of a command's result; reports its error on standard error.
pub(crate) fn code(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Success) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::FAILURE,
        Ok(Exit::Saved) => ExitCode::from(STOPPED_EXIT_CODE),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Result of a command that has done its work and then reported it: an unread report changes
/// nothing, unless the report was the whole task.
pub(crate) fn after(exit: Exit, said: anyhow::Result<()>) -> anyhow::Result<Exit> {
    match said {
        Err(error) if exit == Exit::Success => Err(error),
        Err(error) => {
            if !is_broken_pipe(&error) {
                complain(&error);
            }
            Ok(exit)
        }
        Ok(()) => Ok(exit),
    }
}

/// Reports an error on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    let label = console::style("error:").for_stderr().red().bold();
    terminal::complain(format_args!(
        "{label} {}",
        terminal::printable(&message::of(error))
    ));
}

/// Whether the reader of the output has closed it (`tightrope … | head`), which is no error.
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

    #[test]
    fn what_a_command_has_found_does_not_depend_on_a_reader() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let said = || Err::<(), _>(io::Error::from(kind)).context("writing");
            assert!(after(Exit::Success, said()).is_err());
            for exit in [Exit::Saved, Exit::Failed] {
                assert_eq!(after(exit, said()).unwrap(), exit);
            }
        }
    }
}
