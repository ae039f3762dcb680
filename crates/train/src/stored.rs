//! A packing that `tightrope pack --write` stored: reads it and compares it with the run.

use crate::{Config, TrainError, config::counts_sequences, files::at};
use std::{fs::File, io::BufReader, path::Path};
use tightrope_data::Examples;
use tightrope_packing::{Algorithm, Layout, PackError, Packer, Packing, Piece};

/// Error of a stored packing that does not belong to the run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredPackingError {
    /// The file is not JSON of a packing.
    #[error("not a packing as `tightrope pack --write` stores it: {0}")]
    Json(#[from] serde_json::Error),
    /// The packs have another capacity.
    #[error("packed to {stored} tokens, but `packing.capacity` is {capacity}; make them the same")]
    Capacity {
        /// Capacity in the file.
        stored: u64,
        /// Capacity in the configuration.
        capacity: u64,
    },
    /// The rows are of another kind.
    #[error(
        "holds {}, but `packing.mode` = \"{mode}\" needs {}; set the mode that it was packed with",
        rows(*stored), rows(mode.layout())
    )]
    Layout {
        /// Layout in the file.
        stored: Layout,
        /// Mode in the configuration.
        mode: Algorithm,
    },
    /// A pack has more sequences than the configuration allows.
    #[error("pack {pack} holds {sequences} sequences, but `{key}` is {limit}")]
    Sequences {
        /// Index of the pack, from 0.
        pack: usize,
        /// Number of its sequences.
        sequences: usize,
        /// Key of the limit.
        key: &'static str,
        /// Value of the limit.
        limit: u32,
    },
    /// Sequences that belong together would be cut.
    #[error("cuts {what} {index}, whose sequences must lie in one pack; pack with another mode")]
    CutExample {
        /// Kind of the example.
        what: &'static str,
        /// Number of the example, from 1.
        index: usize,
    },
    /// Beginnings are shared in only one of the two.
    #[error(
        "packed with `packing.share_prefix` = {stored}, but the configuration has {}; make them the \
         same", !stored
    )]
    SharePrefix {
        /// Whether beginnings are shared in the stored packing.
        stored: bool,
    },
    /// The packing was made from other data.
    #[error(
        "packed from other data: {0} (a sequence without a target counts as empty); pack this data: \
         tightrope pack CONFIGURATION --write FILE"
    )]
    Data(PackError),
}

fn rows(layout: Layout) -> &'static str {
    match layout {
        Layout::Packed => "packs",
        Layout::PaddingFree => "padding-free batches",
        Layout::Padded => "padded batches",
    }
}

/// Reads the packing in `path`; it must hold exactly `lengths`, those of the examples, in rows like
/// those of `packer`, the packer of the configuration.
pub(crate) fn read(
    path: &Path,
    config: &Config,
    packer: &Packer,
    lengths: &[u32],
    examples: Examples<'_>,
) -> Result<Packing, TrainError> {
    let file = File::open(path).map_err(at(path))?;
    let packing = parse(BufReader::with_capacity(1 << 20, file));
    let checked = packing.and_then(|packing| {
        check(&packing, config, packer)?;
        if let Err(error) = packing.check_lengths(lengths) {
            let otherwise = examples.lengths_otherwise(config.packing.capacity);
            let otherwise = otherwise.unwrap_or_default();
            let stored = examples.shared().is_none();
            return Err(match packing.check_lengths(&otherwise) {
                Ok(()) => StoredPackingError::SharePrefix { stored },
                Err(_) => StoredPackingError::Data(error),
            });
        }
        let whole = examples.are_whole();
        let is_cut = |piece: &&Piece| Some(&piece.length) != lengths.get(piece.sequence as usize);
        match packing.pieces().iter().find(is_cut).filter(|_| whole) {
            Some(piece) => Err(StoredPackingError::CutExample {
                what: if examples.are_pairs() {
                    "pair"
                } else {
                    "group"
                },
                index: piece.sequence as usize + 1,
            }),
            None => Ok(packing),
        }
    });
    checked.map_err(|source| TrainError::StoredPacking {
        path: path.to_owned(),
        source,
    })
}

fn parse(reader: impl std::io::Read) -> Result<Packing, StoredPackingError> {
    Ok(serde_json::from_reader(reader)?)
}

fn check(packing: &Packing, config: &Config, packer: &Packer) -> Result<(), StoredPackingError> {
    let (stored, mode) = (packing.layout(), config.packing.mode);
    if stored != mode.layout() {
        return Err(StoredPackingError::Layout { stored, mode });
    }
    let (stored, capacity) = (packing.capacity(), packer.capacity);
    if stored != capacity {
        return Err(StoredPackingError::Capacity { stored, capacity });
    }
    let (key, limit) = match counts_sequences(mode) {
        true => ("batch.sequences_per_step", Some(packer.batch_size)),
        false => ("packing.max_sequences", config.packing.max_sequences),
    };
    if let Some(limit) = limit {
        let mut packs = packing.iter().map(<[_]>::len).enumerate();
        if let Some((pack, sequences)) = packs.find(|(_, count)| *count > limit as usize) {
            return Err(StoredPackingError::Sequences {
                pack,
                sequences,
                key,
                limit,
            });
        }
    }
    Ok(())
}
