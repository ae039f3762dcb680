//! SIGINT and SIGTERM: the first asks the run to finish its step and save, the second ends at once.

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{process, thread};
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
