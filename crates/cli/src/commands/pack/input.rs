//! Reads data sets, lengths and histograms; a bad value is named with its file and place.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::value::RawValue;
use tightrope_data::packing::{Algorithm, Histogram, PackError};
use tightrope_train::{Base, Config, batches};

use crate::progress::{Bars, share_done};

/// What there is to pack.
pub struct Input {
    /// Where it is from.
    pub name: PathBuf,
    /// Every length in order, unless only the histogram is known.
    pub lengths: Option<Vec<u32>>,
    /// Whether the lengths are the lines of the file.
    pub by_line: bool,
    /// How often each length occurs.
    pub histogram: Histogram,
}

impl Input {
    /// The error with the place of its value.
    pub fn locate(&self, error: PackError, algorithm: Algorithm) -> anyhow::Error {
        let name = self.name.display();
        let place = match &error {
            PackError::Overlong { index, .. } if self.by_line => format!("{name}:{}", index + 1),
            _ => format!("cannot pack {name} with {algorithm}"),
        };
        anyhow::Error::new(error).context(place)
    }
}

/// The lengths of the configuration's training sequences, as its run packs them.
pub fn data_set(config: &Config) -> anyhow::Result<Input> {
    let bars = Bars::default();
    let (data, _) = Base::of(config, &bars)?.load_both(config, &bars)?;
    let lengths = batches::lengths(&data.sequences);
    Ok(Input {
        name: "training data".into(),
        histogram: Histogram::from_lengths(lengths.iter().copied())?,
        lengths: Some(lengths),
        by_line: false,
    })
}

/// One length a line, streamed; ends of lines may be `\n` or `\r\n`.
pub fn lengths(file: &Path) -> anyhow::Result<Input> {
    let reading = || format!("cannot read {}", file.display());
    let opened = File::open(file).with_context(reading)?;
    let bar = ProgressBar::new(opened.metadata().with_context(reading)?.len());
    bar.set_style(share_done());
    bar.set_message("reading lengths");
    let mut reader = BufReader::with_capacity(1 << 20, bar.wrap_read(opened));
    let mut lengths = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than the longest length with its end tells a line that is too long.
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.with_context(reading)? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let length = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
        let Some(length) = length.filter(|_| !text.starts_with(b"+")) else {
            bar.finish_and_clear();
            bail!(
                "{}:{}: `{}` is not a length from 0 to {}",
                file.display(),
                lengths.len() + 1,
                String::from_utf8_lossy(text).escape_debug(),
                u32::MAX
            );
        };
        if lengths.len() == MAX_LENGTHS {
            bar.finish_and_clear();
            bail!(
                "{}:{}: more than {MAX_LENGTHS} lengths, the most that are packed one by one; count \
                 them and give --histogram",
                file.display(),
                lengths.len() + 1,
            );
        }
        lengths.push(length);
    }
    bar.finish_and_clear();
    let histogram = Histogram::from_lengths(lengths.iter().copied());
    Ok(Input {
        name: file.to_owned(),
        histogram: histogram.with_context(|| file.display().to_string())?,
        lengths: Some(lengths),
        by_line: true,
    })
}

const MAX_LINE: u64 = 64;
/// 1 GiB of lengths; a file or a pipe may have no end.
const MAX_LENGTHS: usize = 1 << 28;
/// A number of a histogram takes up to 20 times its digits while it is read.
const MAX_HISTOGRAM: u64 = 64 << 20;

/// A JSON array, or an object with an array `counts`.
pub fn histogram(file: &Path) -> anyhow::Result<Input> {
    let reading = || format!("cannot read {}", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(reading)?;
    let mut opened = opened.take(MAX_HISTOGRAM + 1);
    opened.read_to_string(&mut text).with_context(reading)?;
    if text.len() as u64 > MAX_HISTOGRAM {
        bail!(
            "{}: more than {} MiB, which no histogram of lengths needs",
            file.display(),
            MAX_HISTOGRAM >> 20
        );
    }
    let values: Vec<&RawValue> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text).with_context(reading)?,
        false => {
            let object: Counts = serde_json::from_str(&text).with_context(reading)?;
            object.counts
        }
    };
    let mut counts = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().map(RawValue::get).enumerate() {
        let Ok(count) = value.parse() else {
            let (line, column) = place(&text, value);
            bail!(
                "{}:{line}:{column}: count {index} is {value:.64}, not a whole number from 0 to {}",
                file.display(),
                u64::MAX
            );
        };
        counts.push(count);
    }
    Ok(Input {
        name: file.to_owned(),
        lengths: None,
        by_line: false,
        histogram: Histogram::from_counts(&counts).with_context(|| file.display().to_string())?,
    })
}

#[derive(Deserialize)]
#[serde(expecting = "an array, or an object with an array `counts`")]
struct Counts<'a> {
    #[serde(borrow)]
    counts: Vec<&'a RawValue>,
}

/// Line and column, from 1, of a part of `text`.
fn place(text: &str, part: &str) -> (usize, usize) {
    let before = &text[..part.as_ptr().addr() - text.as_ptr().addr()];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}
