//! Reads data sets, lengths and histograms; errors name the file and the place of a wrong value.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::Context;
use indicatif::ProgressBar;
use tightrope_data::{
    DataError, Dataset, Examples, Shared,
    packing::{Algorithm, Histogram, Layout, PackError},
};
use tightrope_report::numbers::counted;
use tightrope_run::{
    Base,
    lengths::{LengthsError, read_histogram, read_lengths},
};
use tightrope_train::Config;

use crate::{
    progress::{Bars, share_done},
    report::shared_beginnings,
};

/// Lengths to pack.
pub(super) struct Input {
    /// File or configuration that they come from.
    pub name: PathBuf,
    /// All lengths in order; `None` if only the histogram is known.
    pub lengths: Option<Vec<u32>>,
    /// Whether the lengths are those of sequences that belong together, which are not cut.
    pub whole: bool,
    /// What `packing.share_prefix` saves, or would save.
    pub shared: Option<String>,
    /// Whether each line of the file is a length.
    pub by_line: bool,
    /// Number of occurrences of each length.
    pub histogram: Histogram,
}

impl Input {
    /// Adds the place of the wrong value to the error.
    pub(super) fn locate(&self, error: PackError, algorithm: Algorithm) -> anyhow::Error {
        let name = self.name.display();
        let place = match &error {
            PackError::Overlong {
                index,
                length,
                capacity,
            } if self.by_line => {
                let (line, tokens) = (index + 1, counted((*length).into(), "token"));
                return anyhow::anyhow!(
                    "{name}:{line}: {tokens}, more than the capacity of {capacity}"
                );
            }
            _ => format!("cannot pack {name} with {algorithm}"),
        };
        anyhow::Error::new(error).context(place)
    }
}

/// Lengths of the configuration's training sequences, as its run packs them.
pub(super) fn data_set(config: &Config) -> anyhow::Result<Input> {
    let bars = Bars::default();
    let base = Base::of(config, &bars)?;
    let (mut data, _) = base.load_both(config, &bars)?;
    let examples = Examples::from(&data);
    let (lengths, whole) = (examples.packed_lengths(), examples.are_whole());
    Ok(Input {
        name: "training data".into(),
        histogram: Histogram::from_lengths(lengths.iter().copied())?,
        shared: shared(config, &mut data, base.longest_shared())?,
        lengths: Some(lengths),
        whole,
        by_line: false,
    })
}

/// Says what sharing beginnings saves or, if the mode allows it, would save.
fn shared(config: &Config, data: &mut Dataset, longest: u64) -> Result<Option<String>, DataError> {
    let mode = config.packing.mode;
    let (name, is_on) = ("packing.share_prefix", data.shared.is_some());
    if !is_on {
        if mode.layout() != Layout::Packed || mode.cuts_sequences() {
            return Ok(None);
        }
        data.share_beginnings(longest, config.packing.capacity)?;
    }
    let Some(saved) = data.shared.as_ref().map(Shared::saved_tokens) else {
        return Ok(None);
    };
    if !is_on && saved == 0 {
        return Ok(None);
    }
    let said = shared_beginnings(saved, data.sequences.tokens().saturating_sub(saved));
    Ok(Some(match is_on {
        true => format!("{name}: {said}"),
        false => format!("with {name} = true, {said}"),
    }))
}

/// Reads one length per line with [`read_lengths`].
pub(super) fn lengths(file: &Path) -> anyhow::Result<Input> {
    let reading = || format!("cannot read {}", file.display());
    let opened = File::open(file).with_context(reading)?;
    let bar = ProgressBar::new(opened.metadata().with_context(reading)?.len());
    bar.set_style(share_done());
    bar.set_message("reading lengths");
    let lengths = read_lengths(BufReader::with_capacity(1 << 20, bar.wrap_read(opened)));
    bar.finish_and_clear();
    let lengths = lengths.map_err(|error| located(file, error))?;
    let histogram = Histogram::from_lengths(lengths.iter().copied());
    Ok(Input {
        name: file.to_owned(),
        histogram: histogram.with_context(|| file.display().to_string())?,
        lengths: Some(lengths),
        whole: false,
        shared: None,
        by_line: true,
    })
}

/// Reads a JSON array, or an object with an array `counts`.
pub(super) fn histogram(file: &Path) -> anyhow::Result<Input> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let counts = read_histogram(opened).map_err(|error| located(file, error))?;
    Ok(Input {
        name: file.to_owned(),
        lengths: None,
        whole: false,
        shared: None,
        by_line: false,
        histogram: Histogram::from_counts(&counts).with_context(|| file.display().to_string())?,
    })
}

fn located(file: &Path, error: LengthsError) -> anyhow::Error {
    let place = format!("{}{}", file.display(), error.place());
    anyhow::Error::new(error).context(place)
}
