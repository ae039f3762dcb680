//! Shows the progress of long work on standard error: a bar on a terminal, nothing on a pipe.

use crate::terminal::{self, printable};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};
use tightrope_data::Progress;
use tightrope_train::Observer;

/// A bar for each piece of work, removed when the work is done.
#[derive(Default)]
pub(crate) struct Bars {
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn with_current(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bars {
    fn start(&self, what: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(share_done()),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {elapsed}  {msg}")),
        };
        let room = columns().saturating_sub(if columns() < WIDE { 10 } else { 54 });
        let what = cut(&printable(what), room).into_owned();
        self.with_current(|current| *current = Some(bar.with_message(what)));
    }

    fn advance(&self, n: u64) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.inc(n);
            }
        });
    }

    fn finish(&self) {
        self.with_current(|current| {
            if let Some(bar) = current.take() {
                bar.finish_and_clear();
            }
        });
    }
}

/// For work that is not a run, only progress and notices are shown.
impl Observer for Bars {
    fn notice(&self, text: &str) {
        let label = console::style("note:").for_stderr().yellow().bold();
        terminal::complain(format_args!("{label} {}", printable(text)));
    }
}

/// A bar for work of a known size, or only the percentage on a narrow terminal.
pub(crate) fn share_done() -> ProgressStyle {
    style(match columns() < WIDE {
        true => "{percent:>3} %  {msg}",
        false => "{msg} {bar:30.green/dim} {percent:>3} %  {eta} left",
    })
}

/// Smallest number of columns with room for bars.
pub(crate) const WIDE: usize = 72;

/// Number of columns of the terminal with the bars.
pub(crate) fn columns() -> usize {
    console::Term::stderr().size().1.into()
}

/// Cuts the text to this number of columns. A bar that reaches the last column is drawn twice when
/// the terminal writes `^C` behind it.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    console::truncate_str(text, columns, "…")
}

/// A style from a template that is known to be well-formed.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
