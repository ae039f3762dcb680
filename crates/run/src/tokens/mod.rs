//! Tokens of data files, kept on disk: they are written there while the data is read, a run reads
//! them from there, and a run on the same files, with the same tokenizer and options, starts with
//! them. The files are those of [`Sequences::open`], with a [`Header`].

use crate::fingerprint::of_files;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};
use tightrope_data::{
    ChatTemplate, DataError, Dataset, ExampleKind, FileSet, Preflight, SequenceWriter, Sequences,
    Tokenizer, load_into, load_sets,
};
use tightrope_formats::files::{Temporary, hexadecimal, remove_stale};
use tightrope_report::numbers::bytes;
use tightrope_train::{Config, Observer, config::CacheChoice, paths};

/// Ending of the names of the files.
const ENDING: &str = "tokens";
/// Data of fewer bytes is read anew by default: that takes about a second.
const WORTHWHILE: u64 = 16 << 20;

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
    report: Preflight,
}

/// A file that gets its name when it is whole, and the lock of its folder.
type Unnamed = (Temporary, File);

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
    /// with the cache is an error before the data is loaded.
    pub(crate) fn load(
        &self,
        sets: &[FileSet],
        tokenizer: Option<&Tokenizer>,
        embedding: Option<usize>,
        observer: &dyn Observer,
    ) -> Result<Dataset, DataError> {
        let files = sets.iter().flat_map(|set| &set.paths);
        let size: u64 = files
            .filter_map(|path| Some(fs::metadata(path).ok()?.len()))
            .sum();
        // Files that cannot be digested cannot be read, and reading them says why.
        let key = match size < self.from_bytes {
            true => None,
            false => key(sets, tokenizer, embedding),
        };
        let Some(key) = key else {
            return load_sets(sets, tokenizer, embedding, observer);
        };
        let file = self.folder.join(format!("{key}.{ENDING}"));
        if file.exists() {
            match stored(&file, &key, sets) {
                Ok(data) => return Ok(data),
                Err(why) => observer.notice(&format!(
                    "{}: the tokens kept here cannot be used ({why}); the data is read anew",
                    file.display()
                )),
            }
        }
        let not_kept = |error: &io::Error| {
            observer.notice(&format!(
                "{}: the tokens cannot be kept here ({error}); the next run reads the data anew",
                file.display()
            ));
        };
        let (new, unnamed) = match self.begin(&file) {
            Ok(begun) => begun,
            Err(error) => {
                not_kept(&error);
                return load_sets(sets, tokenizer, embedding, observer);
            }
        };
        let read = SequenceWriter::to_file(new, &file)
            .and_then(|writer| load_into(writer, sets, tokenizer, embedding, observer));
        let data = match read {
            Err(DataError::Io { path, source }) if path == file => {
                not_kept(&source);
                return load_sets(sets, tokenizer, embedding, observer);
            }
            other => other?,
        };
        match unnamed {
            Some((temporary, _lock)) if !data.report.template_reads_clock => {
                match seal(&data, key, temporary) {
                    Ok(size) => observer.notice(&format!(
                        "{}: keeps the tokens ({}), with which the next run on this data starts; \
                         data.cache = \"off\" keeps none",
                        file.display(),
                        bytes(size)
                    )),
                    Err(error) => not_kept(&error),
                }
            }
            // The file has no name, and is gone with the data.
            _ => {}
        }
        Ok(data)
    }

    /// A new file for tokens. It will not get the name `file` if another process is writing to the
    /// folder.
    fn begin(&self, file: &Path) -> io::Result<(File, Option<Unnamed>)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let lock = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                remove_stale(&self.folder)?;
                let (temporary, new) = Temporary::file(file)?;
                Ok((new, Some((temporary, lock))))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let number = COUNT.fetch_add(1, Ordering::Relaxed);
                let name = format!("{}-{number}.{ENDING}", process::id());
                let (temporary, new) = Temporary::file(&self.folder.join(name))?;
                // What is open stays readable without its name.
                drop(temporary);
                Ok((new, None))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Ends the file that the sequences lie in, gives it its name, and returns its size.
fn seal(data: &Dataset, key: String, temporary: Temporary) -> io::Result<u64> {
    let header = Header {
        key,
        kind: data.kind,
        report: data.report.clone(),
    };
    let size = data.sequences.seal(&serde_json::to_vec(&header)?)?;
    temporary.finish()?;
    Ok(size)
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

/// Opens a file of the cache, or says what is wrong with it.
fn stored(file: &Path, key: &str, sets: &[FileSet]) -> Result<Dataset, String> {
    let (sequences, header) = Sequences::open(file).map_err(|error| error.to_string())?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| "it is cut off or damaged".to_owned())?;
    if header.key != key {
        return Err("it is of other data".to_owned());
    }
    let desirable = match header.kind {
        ExampleKind::Labelled => sequences.verdicts().map_err(|error| error.to_string())?,
        ExampleKind::Sequences | ExampleKind::Pairs => Vec::new(),
    };
    let mut data = Dataset {
        sequences,
        kind: header.kind,
        desirable,
        shared: None,
        report: header.report,
    };
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

#[cfg(test)]
mod tests;
