//! Reads lengths of sequences from text: one per line, or counted in a histogram.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{self, BufRead, Read};

/// Error of lengths that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LengthsError {
    /// The file system reports an error.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// A line is no length.
    #[error("`{text}` is not a length from 0 to {}", u32::MAX)]
    NotALength {
        /// Number of the line, from 1.
        line: usize,
        /// Text of the line.
        text: String,
    },
    /// There are more lengths than can be packed one by one.
    #[error(
        "more than {MAX_LENGTHS} lengths, the most that are packed one by one; count them and give \
         --histogram"
    )]
    TooMany {
        /// First line that is too many, from 1.
        line: usize,
    },
    /// The text of a histogram is too large.
    #[error("more than {} MiB, which no histogram of lengths needs", MAX_HISTOGRAM >> 20)]
    TooLarge,
    /// A histogram is not JSON of the right form.
    #[error("is not a histogram")]
    Json(#[from] serde_json::Error),
    /// A value of a histogram is no count.
    #[error(
        "count {index} is {text:.64}, not a whole number from 0 to {}",
        u64::MAX
    )]
    NotACount {
        /// Line of the value, from 1.
        line: usize,
        /// Column of the value in characters, from 1.
        column: usize,
        /// Index of the value, from 0.
        index: usize,
        /// Text of the value.
        text: String,
    },
}

impl LengthsError {
    /// Place of the error, to be appended to the name of the file: nothing, `:3` or `:3:7`.
    pub fn place(&self) -> String {
        match self {
            Self::NotALength { line, .. } | Self::TooMany { line } => format!(":{line}"),
            Self::NotACount { line, column, .. } => format!(":{line}:{column}"),
            Self::Io(_) | Self::TooLarge | Self::Json(_) => String::new(),
        }
    }
}

const MAX_LINE: u64 = 64;
/// Largest number of lengths (1 GiB); a file or a pipe may have no end.
const MAX_LENGTHS: usize = 1 << 28;
/// Largest size of a histogram in bytes; a number takes up to 20 times the size of its digits while
/// it is read.
const MAX_HISTOGRAM: u64 = 64 << 20;

/// Reads one length per line as a stream; lines may end in `
/// ` or `\r
/// `.
pub fn read_lengths(mut reader: impl BufRead) -> Result<Vec<u32>, LengthsError> {
    let mut lengths = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // Reading one byte more than the longest length with its line end reveals a line that is
        // too long.
        if reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(lengths);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let length = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
        let number = lengths.len() + 1;
        let Some(length) = length.filter(|_| !text.starts_with(b"+")) else {
            return Err(LengthsError::NotALength {
                line: number,
                text: String::from_utf8_lossy(text).escape_debug().to_string(),
            });
        };
        if lengths.len() == MAX_LENGTHS {
            return Err(LengthsError::TooMany { line: number });
        }
        lengths.push(length);
    }
}

/// Reads the number of sequences of length i+1 at index i: a JSON array, or an object with an array
/// `counts`.
pub fn read_histogram(reader: impl Read) -> Result<Vec<u64>, LengthsError> {
    let mut text = String::new();
    reader.take(MAX_HISTOGRAM + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_HISTOGRAM {
        return Err(LengthsError::TooLarge);
    }
    let values: Vec<&RawValue> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text)?,
        false => serde_json::from_str::<Counts<'_>>(&text)?.counts,
    };
    let count = |(index, value): (usize, &RawValue)| {
        value.get().parse().map_err(|_| {
            let (line, column) = place(&text, value.get());
            LengthsError::NotACount {
                line,
                column,
                index,
                text: value.get().to_owned(),
            }
        })
    };
    values.into_iter().enumerate().map(count).collect()
}

#[derive(Deserialize)]
#[serde(expecting = "an array, or an object with an array `counts`")]
struct Counts<'a> {
    #[serde(borrow)]
    counts: Vec<&'a RawValue>,
}

/// Line and column of a part of `text`, from 1.
fn place(text: &str, part: &str) -> (usize, usize) {
    let before = &text[..part.as_ptr().addr() - text.as_ptr().addr()];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}
