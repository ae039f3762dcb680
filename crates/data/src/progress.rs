//! How long work tells someone how far it is.

/// Receives progress; called from the thread that started the work.
pub trait Progress: Sync {
    /// Work named `what` begins; `total` in the units of [`advance`](Progress::advance).
    fn start(&self, _what: &str, _total: Option<u64>) {}
    /// `n` more units (bytes of the files, for loading) are done.
    fn advance(&self, _n: u64) {}
    /// The work started last has ended.
    fn finish(&self) {}
}

/// Silence.
impl Progress for () {}
