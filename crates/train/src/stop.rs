//! Asks a run to stop after the current step.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The exit code of a program whose run was stopped, with everything saved ("try again later" in
/// `sysexits.h`).
pub const STOPPED_EXIT_CODE: u8 = 75;

/// A request that a signal handler, another thread or an observer can make. A process has one flag:
/// every long operation checks it.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    requested: Arc<AtomicBool>,
    saving: Arc<AtomicBool>,
}

impl StopFlag {
    /// Asks the run to finish its step, save and return.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether a run is in progress that saves when it is asked to stop. Before and after it, while
    /// files are read or questions are asked, there is nothing to save, and ending the process
    /// loses nothing.
    pub fn is_heard(&self) -> bool {
        self.saving.load(Ordering::SeqCst)
    }

    /// From here until the guard is dropped, the run saves when it is asked to stop.
    pub(crate) fn heard(&self) -> Heard {
        self.saving.store(true, Ordering::SeqCst);
        Heard(Arc::clone(&self.saving))
    }
}

/// While this guard exists, a [`StopFlag`] is heard.
pub(crate) struct Heard(Arc<AtomicBool>);

impl Drop for Heard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
