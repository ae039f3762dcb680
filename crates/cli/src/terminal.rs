//! Destination of results: standard output for users or for programs, with or without color.

use anyhow::Context;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Writes one line to standard error; errors are ignored.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Foreign text in a form that is safe to show: control characters and characters that reorder the
/// line are escaped; line ends and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        let hidden = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        hidden || c.is_control() && !matches!(c, '\n' | '\t')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match obeyed(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// When to color.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The applied global options.
pub(crate) struct Terminal {
    json: bool,
    threads: usize,
}

impl Terminal {
    /// Applies the options to the whole process: colors, and the size of the shared thread pool.
    pub(crate) fn new(json: bool, threads: Option<usize>, color: Color) -> anyhow::Result<Self> {
        let enabled = match color {
            Color::Auto => None,
            Color::Always => Some(true),
            Color::Never => Some(false),
        };
        if let Some(enabled) = enabled {
            console::set_colors_enabled(enabled);
            console::set_colors_enabled_stderr(enabled);
        }
        let threads = threads.unwrap_or(0);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("cannot start the thread pool")?;
        Ok(Self { json, threads })
    }

    /// Whether the reader is a program (`--json`).
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Requested number of threads; 0 = one per core.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Whether a user watches, so that bars on standard error are seen and do not mix with a pipe.
    pub(crate) fn is_live(&self) -> bool {
        !self.json && io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// Writes bytes to standard output.
    pub(crate) fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")
    }

    /// Writes one line to standard output.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nobody_else() {
        let text = "a\u{1b}[2J\u{7}\r\u{9b}é\u{202e}\tb\n";
        let expected = "a\\u{1b}[2J\\u{7}\\u{d}\\u{9b}é\\u{202e}\tb\n";
        assert_eq!(printable(text), expected);
    }
}
