//! Decides which checkpoints are kept.

use super::folder;
use crate::{Observer, TrainError};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Deletes old checkpoints. Only whole checkpoints count and are deleted, so the last whole one
/// always stays.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Whether each known checkpoint is whole; a checkpoint that was saved or read here is whole.
    whole: BTreeMap<u64, bool>,
    /// Checkpoints that are kept because they contain foreign files; each is reported once.
    spared: BTreeSet<u64>,
}

impl Retention {
    /// Records a checkpoint that was just written or checked.
    pub(crate) fn is_whole(&mut self, step: u64) {
        self.whole.insert(step, true);
    }

    /// Deletes all but the newest `keep` and the `best`.
    pub(crate) fn apply(
        &mut self,
        parent: &Path,
        keep: usize,
        best: Option<u64>,
        observer: &dyn Observer,
    ) -> Result<(), TrainError> {
        let mut kept = 0;
        for (step, path) in folder::list(parent) {
            let known = self.whole.entry(step);
            if !*known.or_insert_with(|| folder::check(&path).is_ok()) {
                continue;
            }
            kept += 1;
            if kept <= keep || best == Some(step) || self.spared.contains(&step) {
                continue;
            }
            match folder::stranger(&path) {
                Ok(None) => folder::delete(&path)?,
                Ok(Some(file)) => {
                    let path = path.display();
                    observer.notice(&format!(
                        "{path} stays: {file} in it was not written by the run"
                    ));
                    self.spared.insert(step);
                }
                Err(_) => drop(self.spared.insert(step)),
            }
        }
        Ok(())
    }
}
