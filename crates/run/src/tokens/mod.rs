//! Tokens of data files, kept on disk: a run on the same files, with the same tokenizer and options,
//! starts with them.
//!
//! A file holds, in little-endian numbers: [`MAGIC`], the length of a JSON text and the text, then
//! for each sequence its length (u32), file (u32), row (u64), line (u64, 0: none) and label (u32),
//! then the tokens (u32) and the targets (i32) of one sequence after the other, and the SHA-256 of
//! all this.

use crate::fingerprint::of_files;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use tightrope_data::{
    ChatTemplate, DataError, Dataset, ExampleKind, FileSet, Origin, Preflight, Tokenizer, load_sets,
};
use tightrope_formats::files::{Temporary, hexadecimal, remove_stale};
use tightrope_packing::{IGNORED, Sequence};
use tightrope_report::numbers::bytes;
use tightrope_train::{Config, Observer, config::CacheChoice, paths};

const MAGIC: &[u8] = b"tightrope tokens 2\n";
/// Ending of the names of the files.
const ENDING: &str = "tokens";
/// Data of fewer bytes is read anew by default: that takes about a second.
const WORTHWHILE: u64 = 16 << 20;
/// Size of an entry of the index.
const ENTRY: u64 = 28;
const DIGEST: u64 = 32;
/// Largest size of the JSON text.
const HEADER: u64 = 64 << 20;

/// Tokens of data, in a folder.
#[derive(Debug)]
pub(crate) struct TokenCache {
    folder: PathBuf,
    /// Size of data from which on it is kept.
    from_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    kind: ExampleKind,
    sequences: u64,
    tokens: u64,
    report: Preflight,
}

impl TokenCache {
    /// The cache that a configuration names, if it names one.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match &config.data.cache {
            CacheChoice::Off => None,
            CacheChoice::Auto => {
                let user = || paths::home(Path::new("~/.cache"));
                let caches = variable("XDG_CACHE_HOME").map_or_else(user, PathBuf::from);
                Some(Self {
                    folder: caches.join("tightrope/tokens"),
                    from_bytes: WORTHWHILE,
                })
            }
            CacheChoice::Folder(folder) => Some(Self {
                folder: folder.clone(),
                from_bytes: 0,
            }),
        }
    }

    /// Loads sets from the cache, or reads their files and keeps the tokens. Nothing that goes wrong
    /// with the cache is an error.
    pub(crate) fn load(
        &self,
        sets: &[FileSet],
        tokenizer: Option<&Tokenizer>,
        embedding: Option<usize>,
        observer: &dyn Observer,
    ) -> Result<Dataset, DataError> {
        let read = || load_sets(sets, tokenizer, embedding, observer);
        let files = sets.iter().flat_map(|set| &set.paths);
        let size: u64 = files
            .filter_map(|path| Some(fs::metadata(path).ok()?.len()))
            .sum();
        if size < self.from_bytes {
            return read();
        }
        // Files that cannot be digested cannot be read, and reading them says why.
        let Some(key) = key(sets, tokenizer, embedding) else {
            return read();
        };
        let file = self.folder.join(format!("{key}.{ENDING}"));
        if file.exists() {
            match stored(&file, &key, sets, observer) {
                Ok(data) => return Ok(data),
                Err(why) => observer.notice(&format!(
                    "{}: the tokens kept here cannot be used ({why}); the data is read anew",
                    file.display()
                )),
            }
        }
        let data = read()?;
        if data.report.template_reads_clock {
            return Ok(data);
        }
        match self.store(&file, &key, &data) {
            Ok(Some(size)) => observer.notice(&format!(
                "{}: keeps the tokens ({}), with which the next run on this data starts; \
                 data.cache = \"off\" keeps none",
                file.display(),
                bytes(size)
            )),
            Ok(None) => {}
            Err(error) => observer.notice(&format!(
                "{}: the tokens cannot be kept here ({error}); the next run reads the data anew",
                file.display()
            )),
        }
        Ok(data)
    }

    /// Writes the file whole or not at all, and returns its size; `None` if another process is
    /// writing to the folder.
    fn store(&self, file: &Path, key: &str, data: &Dataset) -> io::Result<Option<u64>> {
        fs::create_dir_all(&self.folder)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        remove_stale(&self.folder)?;
        let (temporary, new) = Temporary::file(file)?;
        let mut writer = Digesting {
            inner: BufWriter::with_capacity(1 << 20, new),
            hash: Sha256::new(),
        };
        let header = serde_json::to_vec(&Header {
            key: key.to_owned(),
            kind: data.kind,
            sequences: data.sequences.len() as u64,
            tokens: data
                .sequences
                .iter()
                .map(|sequence| sequence.len() as u64)
                .sum(),
            report: data.report.clone(),
        })?;
        writer.write_all(MAGIC)?;
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        for (index, (sequence, origin)) in data.sequences.iter().zip(&data.origins).enumerate() {
            let good = data.desirable.get(index).copied().unwrap_or_default();
            writer.write_all(&(sequence.len() as u32).to_le_bytes())?;
            writer.write_all(&origin.file.to_le_bytes())?;
            writer.write_all(&origin.row.to_le_bytes())?;
            writer.write_all(&origin.line.unwrap_or(0).to_le_bytes())?;
            writer.write_all(&u32::from(good).to_le_bytes())?;
        }
        for sequence in &data.sequences {
            for token in sequence.tokens() {
                writer.write_all(&token.to_le_bytes())?;
            }
            for target in sequence.targets() {
                writer.write_all(&target.to_le_bytes())?;
            }
        }
        let Digesting { mut inner, hash } = writer;
        inner.write_all(&hash.finalize())?;
        let size = inner
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .metadata()?
            .len();
        temporary.finish()?;
        Ok(Some(size))
    }
}

/// A digest of everything that decides the tokens: the contents and paths of the files, the options,
/// the tokenizer, and this program. `None` if something of it cannot be read.
fn key(
    sets: &[FileSet],
    tokenizer: Option<&Tokenizer>,
    embedding: Option<usize>,
) -> Option<String> {
    let set = |set: &FileSet| {
        let mut options = serde_json::to_value(&set.options).ok()?;
        // The contents of a template count, not its path.
        if let Some(template) = &set.options.chat_template {
            options["chat_template"] = ChatTemplate::from_option(template).ok()?.source().into();
        }
        let files = set.paths.iter().map(|path| {
            let digest = of_files(std::slice::from_ref(path)).ok()?;
            Some(json!([path.to_string_lossy(), digest]))
        });
        Some(json!([
            set.name,
            options,
            files.collect::<Option<Vec<_>>>()?
        ]))
    };
    let sets = sets.iter().map(set).collect::<Option<Vec<Value>>>()?;
    let tokenizer = match tokenizer {
        Some(tokenizer) => Some(tokenizer.identity().ok()?),
        None => None,
    };
    let program = of_files(&[env::current_exe().ok()?]).ok()?;
    let all = json!([program, embedding, tokenizer, sets]).to_string();
    Some(hexadecimal(&Sha256::digest(all)))
}

/// Reads a file of the cache, or says what is wrong with it.
fn stored(
    file: &Path,
    key: &str,
    sets: &[FileSet],
    observer: &dyn Observer,
) -> Result<Dataset, String> {
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let size = opened.metadata().map_err(|error| error.to_string())?.len();
    observer.start("reading tokens", Some(size));
    let data = parse(opened, size, key, observer);
    observer.finish();
    let mut data = data?;
    // What is not stored follows from the sets.
    let report = &mut data.report;
    let of_files = sets
        .iter()
        .enumerate()
        .flat_map(|(set, own)| own.paths.iter().map(move |_| set));
    report
        .files
        .iter_mut()
        .zip(of_files)
        .for_each(|(file, set)| file.set = set);
    let amounts = report.sets.iter_mut().zip(sets);
    amounts.for_each(|(report, set)| report.amount = set.amount);
    let ways: BTreeSet<_> = sets
        .iter()
        .map(|set| format!("{:?}", set.options.train_on))
        .collect();
    report.trains_differently = ways.len() > 1;
    Ok(data)
}

fn parse(file: File, size: u64, key: &str, observer: &dyn Observer) -> Result<Dataset, String> {
    const SHORT: &str = "it is cut off or damaged";
    let mut reader = Digesting {
        inner: BufReader::with_capacity(1 << 20, file),
        hash: Sha256::new(),
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SHORT.to_owned(),
        _ => error.to_string(),
    };
    if reader.bytes(MAGIC.len()).map_err(failed)? != MAGIC {
        return Err("it has another format".to_owned());
    }
    let length = u64::from_le_bytes(reader.array().map_err(failed)?);
    let rest = size.saturating_sub(MAGIC.len() as u64 + 8);
    if length > rest.min(HEADER) {
        return Err(SHORT.to_owned());
    }
    let header = reader.bytes(length as usize).map_err(failed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| SHORT.to_owned())?;
    if header.key != key {
        return Err("it is of other data".to_owned());
    }
    let index = u128::from(header.sequences) * u128::from(ENTRY);
    let whole = u128::from(length) + index + u128::from(header.tokens) * 8 + u128::from(DIGEST);
    if whole != u128::from(rest) {
        return Err(SHORT.to_owned());
    }
    let count = header.sequences as usize;
    let (mut lengths, mut origins) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut desirable = Vec::new();
    let mut tokens = 0;
    for _ in 0..count {
        let length = u32::from_le_bytes(reader.array().map_err(failed)?);
        let file = u32::from_le_bytes(reader.array().map_err(failed)?);
        let row = u64::from_le_bytes(reader.array().map_err(failed)?);
        let line = u64::from_le_bytes(reader.array().map_err(failed)?);
        let good = u32::from_le_bytes(reader.array().map_err(failed)?);
        if header.kind == ExampleKind::Labelled {
            desirable.push(good > 0);
        }
        tokens += u64::from(length);
        lengths.push(length as usize);
        origins.push(Origin {
            file,
            row,
            line: (line > 0).then_some(line),
        });
    }
    if tokens != header.tokens {
        return Err(SHORT.to_owned());
    }
    let mut sequences = Vec::with_capacity(count);
    for length in lengths {
        let words = reader.bytes(8 * length).map_err(failed)?;
        let (words, _) = words.as_chunks::<4>();
        let (ids, targets) = words.split_at(length);
        let ids: Vec<u32> = ids.iter().map(|word| u32::from_le_bytes(*word)).collect();
        // Labels are the targets before they were shifted.
        let labels = targets
            .iter()
            .map(|word| i64::from(i32::from_le_bytes(*word)));
        let labels: Vec<i64> = [i64::from(IGNORED)]
            .into_iter()
            .chain(labels)
            .take(length)
            .collect();
        let sequence = Sequence::from_labels(ids, &labels).map_err(|_| SHORT.to_owned())?;
        observer.advance(8 * length as u64);
        sequences.push(sequence);
    }
    let digest = std::mem::take(&mut reader.hash).finalize();
    if reader.bytes(DIGEST as usize).map_err(failed)? != digest[..] {
        return Err("it is damaged".to_owned());
    }
    Ok(Dataset {
        sequences,
        kind: header.kind,
        desirable,
        shared: None,
        origins,
        report: header.report,
    })
}

/// Reads or writes, and digests what passes.
struct Digesting<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Digesting<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Digesting<T> {
    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.inner.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.hash.update(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
