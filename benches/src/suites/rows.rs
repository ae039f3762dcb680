//! An observer for the suites that train.

use std::sync::Mutex;
use tightrope_data::Progress;
use tightrope_train::{Observer, StepRow};

/// Keeps the rows of the steps, and prints nothing.
#[derive(Default)]
pub(super) struct Rows(pub Mutex<Vec<StepRow>>);

impl Progress for Rows {}

impl Observer for Rows {
    fn stepped(&self, row: &StepRow) {
        if let Ok(mut rows) = self.0.lock() {
            rows.push(row.clone());
        }
    }
}
