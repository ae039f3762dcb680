//! Handles signals that end a process: the first asks a run that can save to stop, and the second
//! ends it at once. All other work ends at once and leaves nothing half-written.

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
    iterator::Signals,
    low_level,
};
use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
    thread,
};
use tightrope_formats::files::remove_temporaries;
use tightrope_train::StopFlag;

/// Sets `stop` at the first signal that a run can answer by saving; `announce` tells the user. Any
/// other signal ends the process. The handlers stay as long as the process.
pub(crate) fn stop_on_signal(
    stop: StopFlag,
    announce: impl Fn() + Send + Sync + 'static,
) -> Result<()> {
    let mut signals = listen()?;
    let announce = Arc::new(announce);
    thread::spawn(move || {
        for signal in signals.forever() {
            if stop.is_requested() || !stop.is_heard() {
                end(signal);
            }
            stop.request();
            // The announcement has a separate thread: nobody may be reading, and the next signal
            // must be handled.
            let announce = Arc::clone(&announce);
            let _ = thread::Builder::new().spawn(move || announce());
        }
    });
    Ok(())
}

/// Lets a write beyond the limit of file sizes (`ulimit -f`) fail as one on a full disk does; by
/// default its signal ends the process without a word.
pub(crate) fn survive_large_files() {
    // A handler is enough, whatever it does. Without one, the write is as it was.
    drop(flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))));
}

fn listen() -> Result<Signals> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    Signals::new(signals).context("cannot listen for signals")
}

/// Whether the process was started with this signal ignored, as by `nohup`; it then stays ignored.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Ends the process with the status of a process killed by the signal, without waiting: other
/// threads may hold locks that an orderly end would wait for.
fn end(signal: i32) -> ! {
    remove_temporaries();
    low_level::exit(128 + signal)
}
