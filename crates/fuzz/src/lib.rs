//! Every reader of foreign files, as a function of bytes that may fail but must not panic, hang or
//! exhaust memory. `cargo xtask fuzz` runs them under libFuzzer; the tests run their seeds.
#![forbid(unsafe_code)]

mod model;
mod targets;

pub use targets::TARGETS;

use std::{error::Error, path::PathBuf};
use tempfile::TempDir;

/// Result of reading an input.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A reader under test.
pub struct Target {
    /// Name on the command line, and name of the folder in `found/`.
    pub name: &'static str,
    /// Reads an input and uses the result.
    pub run: fn(&[u8]) -> Outcome,
    /// Inputs that the reader accepts, from which others are made.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format that random bytes would hardly find.
    pub words: &'static [&'static str],
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The words as a dictionary of libFuzzer, which only knows escapes of bytes.
pub fn dictionary(words: &[&str]) -> String {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' | 0..=31 | 127.. => format!("\\x{byte:02x}"),
        _ => char::from(byte).to_string(),
    };
    let entry = |word: &&str| format!("\"{}\"\n", word.bytes().map(byte).collect::<String>());
    words.iter().map(entry).collect()
}

/// Separator between the files of an input that consists of several.
const BOUNDARY: &[u8] = b"\n====\n";

/// First `N` files of an input; missing files are empty.
fn files<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    std::array::from_fn(|index| {
        let boundary = |window: &[u8]| window == BOUNDARY;
        let at = bytes.windows(BOUNDARY.len()).position(boundary);
        let Some(at) = at.filter(|_| index + 1 < N) else {
            return std::mem::take(&mut bytes);
        };
        let (file, rest) = bytes.split_at(at);
        bytes = &rest[BOUNDARY.len()..];
        file
    })
}

/// A temporary folder with these files, which is removed when dropped.
fn folder(files: &[(&str, &[u8])]) -> Result<(TempDir, PathBuf), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes)?;
    }
    Ok((folder, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_divided_into_its_files() {
        let (one, two): ([_; 2], [_; 2]) = (files(b"a"), files(b"a\n====\nb\n====\nc"));
        assert_eq!(one, [b"a".as_slice(), b""]);
        assert_eq!(two, [b"a".as_slice(), b"b\n====\nc"]);
    }

    #[test]
    fn a_dictionary_has_one_quoted_word_a_line() {
        let text = dictionary(&["{%", "a\"'\n"]);
        assert_eq!(text, "\"{%\"\n\"a\\x22'\\x0a\"\n");
    }

    #[test]
    fn names_are_told_apart() {
        for target in TARGETS {
            assert!(std::ptr::eq(find(target.name).unwrap(), target));
        }
    }
}
