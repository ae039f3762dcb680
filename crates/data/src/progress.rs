//! Reports the progress of long work.

/// Receives progress; called from the thread that started the work.
pub trait Progress: Sync {
    /// Work named `what` begins; `total` in the units of [`advance`](Progress::advance).
    fn start(&self, _what: &str, _total: Option<u64>) {}
    /// `n` more units (bytes of the files, for loading) are done.
    fn advance(&self, _n: u64) {}
    /// The work that was started last has ended.
    fn finish(&self) {}
}

/// Reports nothing.
impl Progress for () {}
