//! Tokens that were kept: a file of sequences with its index.

use crate::{Target, folder};
use std::fs;
use tightrope_data::{Origin, SequenceWriter, Sequences, with_digest};
use tightrope_packing::Sequence;

pub(super) const TOKENS: Target = Target {
    name: "tokens",
    run: |bytes| {
        // Otherwise the digest would refuse every change.
        let bytes = with_digest(bytes.to_vec());
        let (_folder, path) = folder(&[("kept", &bytes)])?;
        let (sequences, _) = Sequences::open(&path.join("kept"))?;
        sequences.verdicts()?;
        let mut tokens = 0;
        for index in 0..sequences.len() {
            sequences.origin(index)?;
            sequences.file(index);
            tokens += sequences.length(index);
            // Each sequence has a digest of its own.
            if let Ok(sequence) = sequences.get(index) {
                assert_eq!(sequence.len(), sequences.length(index));
            }
        }
        assert_eq!(tokens as u64, sequences.tokens());
        Ok(())
    },
    seeds: || {
        [0, 3]
            .into_iter()
            .filter_map(|count| kept(count).ok())
            .collect()
    },
    words: &["tightrope tokens 3\n", "{\"key\":"],
};

/// A file of this number of sequences.
fn kept(count: u32) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kept");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    let mut writer = SequenceWriter::to_file(file, &path)?;
    for number in 0..count {
        let labels: Vec<i64> = (0..number).map(i64::from).collect();
        let sequence = Sequence::from_labels((0..number).collect(), &labels)?;
        let origin = Origin {
            file: number / 2,
            row: 1,
            line: Some(1),
        };
        writer.push(&sequence, origin, number > 1)?;
    }
    writer.finish()?.seal(b"{\"key\":\"\"}")?;
    Ok(fs::read(path)?)
}
