//! SIGINT and SIGTERM: the first asks the run to finish its step and save, the second ends at once.
//! What cannot be saved ends at once and leaves nothing half-written.

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{fs, path::PathBuf, process, thread};
use tightrope_train::StopFlag;

/// Sets `stop` at the first signal; `announce` tells the person. Lasts as long as the process.
pub fn stop_on_signal(stop: StopFlag, announce: impl Fn() + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if stop.is_requested() {
                // What a shell reports for a process that the signal killed.
                process::exit(128 + signal);
            }
            stop.request();
            announce();
        }
    });
    Ok(())
}

/// Removes `file`, if it still exists, when a signal ends the process. Lasts as long as the process.
pub fn remove_on_signal(file: PathBuf) -> Result<()> {
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]);
    let mut signals = signals.context("cannot listen for signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // It may have its final name by now.
            let _ = fs::remove_file(file);
            process::exit(128 + signal);
        }
    });
    Ok(())
}
