//! What was stored is read again, from memory and from a file; damage is found.

use super::*;
use std::fs;
use std::path::Path;
use tightrope_formats::files::Temporary;

/// Sequences of some lengths, two of each record.
fn some() -> Vec<(Sequence, Origin)> {
    let sequence = |number: u32| {
        let tokens: Vec<u32> = (number..number + number % 5).collect();
        let labels = tokens.iter().map(|&token| match token % 3 {
            0 => -100,
            _ => i64::from(token),
        });
        let labels: Vec<i64> = labels.collect();
        let origin = Origin {
            file: number / 40,
            row: u64::from(number / 2) + 1,
            line: (!number.is_multiple_of(2)).then_some(u64::from(number)),
        };
        (Sequence::from_labels(tokens, &labels).unwrap(), origin)
    };
    (0..100).map(sequence).collect()
}

fn write(path: &Path, text: &[u8]) -> Sequences {
    let (temporary, file) = Temporary::file(path).unwrap();
    let mut writer = SequenceWriter::to_file(file, path).unwrap();
    for (sequence, origin) in some() {
        writer
            .push(&sequence, origin, origin.row.is_multiple_of(3))
            .unwrap();
    }
    let written = writer.finish().unwrap();
    let size = written.seal(text).unwrap();
    temporary.finish().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), size);
    written
}

fn check(sequences: &Sequences, expected: &[(Sequence, Origin)]) {
    assert_eq!(sequences.len(), expected.len());
    for (index, (sequence, origin)) in expected.iter().enumerate() {
        assert_eq!(&sequences.get(index).unwrap(), sequence);
        assert_eq!(&sequences.origin(index).unwrap(), origin);
        assert_eq!(sequences.file(index), origin.file as usize);
        assert_eq!(sequences.length(index), sequence.len());
        assert_eq!(sequences.trained_tokens(index), sequence.trained_tokens());
        let beginning = sequences.untrained_beginning(index);
        assert_eq!(beginning, sequence.untrained_beginning());
        let first = sequences.first_tokens(index, 0..beginning).unwrap();
        assert_eq!(first, sequence.tokens()[..beginning]);
    }
    let tokens = expected.iter().map(|(sequence, _)| sequence.len() as u64);
    assert_eq!(sequences.tokens(), tokens.sum::<u64>());
}

#[test]
fn memory_and_file_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all");
    let (expected, memory) = (some(), some().into_iter().collect::<Sequences>());
    let written = write(&path, b"text");
    let (opened, text) = Sequences::open(&path).unwrap();
    assert_eq!(text, b"text");
    let verdicts: Vec<bool> = expected
        .iter()
        .map(|(_, o)| o.row.is_multiple_of(3))
        .collect();
    assert_eq!(opened.verdicts().unwrap(), verdicts);
    let swapped: Vec<u32> = [7, 3, 3, 99, 0].into();
    let chosen: Vec<_> = swapped
        .iter()
        .map(|&at| expected[at as usize].clone())
        .collect();
    for sequences in [memory, written, opened] {
        check(&sequences, &expected);
        let some = sequences.select(swapped.clone());
        check(&some, &chosen);
        check(
            &some.select(vec![3, 1]),
            &[chosen[3].clone(), chosen[1].clone()],
        );
        assert!(sequences.same_record(2, 3) && !sequences.same_record(3, 4));
        assert_eq!(sequences.identity(), sequences.clone().identity());
        assert_ne!(sequences.identity(), some.identity());
    }
    let identity = |all: Vec<(Sequence, Origin)>| all.into_iter().collect::<Sequences>().identity();
    let mut moved = some();
    moved[5].1.row += 1000;
    assert_eq!(identity(moved), identity(some()), "origins do not count");
    let mut changed = some();
    changed[4].0 = Sequence::from_labels(vec![4, 5, 6, 9], &[-100; 4]).unwrap();
    assert_ne!(identity(changed), identity(some()));
    assert!(Sequences::default().is_empty());
    assert!(Sequences::default().select(vec![]).is_empty());
}

#[test]
fn any_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all");
    let all = write(&path, b"text");
    let whole = fs::read(&path).unwrap();
    let tokens = file::PREAMBLE as usize..file::PREAMBLE as usize + 8 * all.tokens() as usize;
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Sequences::open(&path)
    };
    for place in 0..whole.len() {
        assert!(open(&whole[..place]).is_err(), "cut to {place}");
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        let opened = open(&bytes);
        if !tokens.contains(&place) {
            assert!(opened.is_err(), "byte {place}");
            continue;
        }
        let opened = opened.unwrap().0;
        let wrong: Vec<_> = (0..100).filter(|&i| opened.get(i).is_err()).collect();
        assert_eq!(wrong.len(), 1, "byte {place}");
        let error = unreadable(7, &opened.get(wrong[0]).unwrap_err()).to_string();
        let named = format!("sequence {} is damaged", wrong[0] + 1);
        assert!(error.contains(&named), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(
            opened.parts(wrong[0]).unwrap_err().to_string(),
            error,
            "units that cannot be read say the same"
        );
    }
    // Entries that no sequence has, under a digest that is right.
    assert_eq!(file::with_digest(whole.clone()), whole);
    let mut entry = whole.clone();
    entry[tokens.end + 8] = 200;
    assert_ne!(file::with_digest(entry.clone()), entry);
    assert!(open(&file::with_digest(entry)).is_err());
    let mut longer = whole.clone();
    longer[tokens.end] += 1;
    assert!(open(&file::with_digest(longer)).is_err());
    check(&open(&whole).unwrap().0, &some());
}

/// A map of the file would end this process.
#[test]
fn a_file_that_is_cut_while_it_is_used_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all");
    write(&path, b"");
    let (opened, _) = Sequences::open(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(file::PREAMBLE + 90).unwrap();
    assert!(opened.get(1).is_err(), "its entry is gone");
    assert!(opened.get(60).is_err() && opened.origin(0).is_err());
}
