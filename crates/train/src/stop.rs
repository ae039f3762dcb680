//! Asking a run to stop after the step it is in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The exit code of a program whose run was stopped, with everything saved ("try again later" in
/// `sysexits.h`).
pub const STOPPED_EXIT_CODE: u8 = 75;

/// A request that a signal handler, another thread or an observer can make. The one flag of a process:
/// whatever takes long looks at it.
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

    /// Whether somebody asked.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether a run goes on that saves when it is asked to stop. Before and after, while files are read
    /// or questions are asked, there is nothing to save, and who stops the process loses nothing.
    pub fn is_heard(&self) -> bool {
        self.saving.load(Ordering::SeqCst)
    }

    /// From here until the guard is dropped the run saves when it is asked to stop.
    pub(crate) fn heard(&self) -> Heard {
        self.saving.store(true, Ordering::SeqCst);
        Heard(Arc::clone(&self.saving))
    }
}

/// While it exists, a [`StopFlag`] is heard.
pub(crate) struct Heard(Arc<AtomicBool>);

impl Drop for Heard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
