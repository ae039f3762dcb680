//! Reads data sets, lengths and histograms; a bad value is named with its file and place.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tightrope_data::packing::{Algorithm, Histogram, PackError};
use tightrope_train::{Base, Config, batches};

use crate::progress::Bars;

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
    let (data, _) = Base::open(&config.model, &bars)?.load_both(config, &bars)?;
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
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_message("reading lengths");
    let mut reader = BufReader::with_capacity(1 << 20, bar.wrap_read(opened));
    let mut lengths = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte more than the longest length with its end tells a line that is too long.
        let read = std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line);
        if read.with_context(reading)? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let length = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
        let Some(length) = length.filter(|_| !text.starts_with(b"+")) else {
            bar.abandon();
            bail!(
                "{}:{}: `{}` is not a length from 0 to {}",
                file.display(),
                lengths.len() + 1,
                String::from_utf8_lossy(text).escape_debug(),
                u32::MAX
            );
        };
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

/// A JSON array, or an object with an array `counts`.
pub fn histogram(file: &Path) -> anyhow::Result<Input> {
    let reading = || format!("cannot read {}", file.display());
    let text = std::fs::read(file).with_context(reading)?;
    let json: serde_json::Value = serde_json::from_slice(&text).with_context(reading)?;
    let array = json.as_array().or_else(|| json.get("counts")?.as_array());
    let Some(array) = array else {
        bail!(
            "{}: neither an array nor an object with an array `counts`",
            file.display()
        );
    };
    let counts = array.iter().enumerate().map(|(index, value)| {
        let count = value.as_u64();
        count.with_context(|| {
            format!(
                "{}: count {index} is {value}, not a number of sequences",
                file.display()
            )
        })
    });
    let counts = counts.collect::<anyhow::Result<Vec<u64>>>()?;
    Ok(Input {
        name: file.to_owned(),
        lengths: None,
        by_line: false,
        histogram: Histogram::from_counts(&counts).with_context(|| file.display().to_string())?,
    })
}
