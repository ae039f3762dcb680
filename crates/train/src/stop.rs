//! Asking a run to stop after the step it is in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The exit code of a program whose run was stopped, with everything saved ("try again later" in
/// `sysexits.h`).
pub const STOPPED_EXIT_CODE: u8 = 75;

/// A request that a signal handler, another thread or an observer can make.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks the run to finish its step, save and return.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The flag itself, for libraries that set one in a signal handler.
    pub fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}
