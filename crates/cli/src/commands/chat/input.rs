//! Sources of questions: an edited line with history on a terminal, plain lines otherwise.

use crate::{progress::Bars, terminal::Terminal};
use anyhow::{Context, Result};
use rustyline::{Config, DefaultEditor, error::ReadlineError};
use std::{
    env, fs,
    io::{self, IsTerminal},
    path::PathBuf,
};
use tightrope_train::Observer;

/// Result of reading.
pub(super) enum Line {
    /// A line, or several between `"""`.
    Text(String),
    /// Ctrl-C instead of a line.
    Interrupted,
    /// The input has ended.
    End,
}

/// The user's terminal, or a pipe.
pub(super) enum Input {
    Live(Box<DefaultEditor>, Option<PathBuf>),
    Pipe,
}

/// Starts and ends a question of several lines.
const QUOTES: &str = "\"\"\"";
/// Number of remembered lines.
const REMEMBERED: usize = 1000;

impl Input {
    /// Opens an editor if a user sits at both ends.
    pub(super) fn open(terminal: &Terminal) -> Result<Self> {
        if !terminal.is_live() || !io::stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        let config = Config::builder()
            .max_history_size(REMEMBERED)
            .and_then(|config| config.history_ignore_dups(true))
            .context("cannot set up line editing")?
            .history_ignore_space(true)
            .build();
        let mut editor = DefaultEditor::with_config(config).context("cannot edit lines here")?;
        let mut history = history();
        let known = history.as_ref().filter(|history| history.exists());
        if let Some(Err(error)) = known.map(|known| editor.load_history(known)) {
            unremembered(&mut history, &error);
        }
        Ok(Self::Live(Box::new(editor), history))
    }

    /// Whether a user types.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(..))
    }

    /// Reads the next question or command.
    pub(super) fn read(&mut self) -> Result<Line> {
        let mut text = match self.line("> ")? {
            Line::Text(line) => line,
            other => return Ok(other),
        };
        if let Some(first) = text.trim_start().strip_prefix(QUOTES) {
            text = first.to_owned();
            while !text.trim_end().ends_with(QUOTES) {
                match self.line("… ")? {
                    Line::Text(line) => text = format!("{text}\n{line}"),
                    other => return Ok(other),
                }
            }
            text.truncate(text.trim_end().len() - QUOTES.len());
        }
        self.remember(&text);
        Ok(Line::Text(text))
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Live(editor, _) => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error).context("cannot read from the terminal"),
            },
            Self::Pipe => {
                let mut line = String::new();
                let read = io::stdin().read_line(&mut line);
                Ok(match read.context("cannot read standard input")? {
                    0 => Line::End,
                    _ => Line::Text(line.trim_end_matches(['\r', '\n']).to_owned()),
                })
            }
        }
    }

    /// The line is stored at once, because a conversation may end in any way.
    fn remember(&mut self, text: &str) {
        let Self::Live(editor, history) = self else {
            return;
        };
        let mut keep = || {
            editor.add_history_entry(text)?;
            if let Some(history) = &history {
                fs::create_dir_all(history.parent().unwrap_or(history))?;
                editor.append_history(history)?;
            }
            Ok(())
        };
        let kept: Result<(), ReadlineError> = keep();
        if let Err(error) = kept {
            unremembered(history, &error);
        }
    }
}

/// Reports once that history cannot be stored; the chat works without it.
fn unremembered(history: &mut Option<PathBuf>, error: &ReadlineError) {
    if let Some(file) = history.take() {
        let file = file.display();
        Bars::default().notice(&format!("{file}: {error}; questions are not remembered"));
    }
}

/// File for the history on this system, if it has a place for it.
fn history() -> Option<PathBuf> {
    let named = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let folder = match named.filter(|folder| folder.is_absolute()) {
        Some(folder) => folder,
        None => env::home_dir()?.join(".local/state"),
    };
    Some(folder.join("tightrope").join("history"))
}
