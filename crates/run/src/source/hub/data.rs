//! Data sets of the hub: the files of a split, converted to Parquet by the hub or as they are.

use super::{Hub, Kind, cache::Repository, names::is_path};
use crate::source::SourceError;
use sha2::{Digest, Sha256};
use std::{fs, path::PathBuf};
use tightrope_data::Progress;
use tightrope_formats::files;

/// Branch to which the hub converts data sets.
pub(super) const CONVERTED: &str = "refs/convert/parquet";
/// A part of a data set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// `owner/name`.
    pub id: &'a str,
    /// Branch, tag or commit with files of its own; absent: the files that the hub converts, else
    /// those of `main`.
    pub revision: Option<&'a str>,
    /// Configuration of the data set.
    pub subset: Option<&'a str>,
    pub split: &'a str,
}

impl Part<'_> {
    /// Name of the list of the part's files in the cache.
    fn list_name(&self) -> String {
        let text = format!("{}\0{}", self.subset.unwrap_or_default(), self.split);
        files::hexadecimal(&Sha256::digest(text)[..16])
    }
}

impl Repository {
    /// File that lists the files of a part; it is written after the last of them.
    fn part_list(&self, commit: &str, part: &Part<'_>) -> PathBuf {
        self.folder()
            .join("tightrope")
            .join(commit)
            .join(format!("{}.json", part.list_name()))
    }

    /// Files of a part that was downloaded before, all of them.
    fn kept(&self, revision: &str, part: &Part<'_>) -> Option<Vec<PathBuf>> {
        let folder = self.cached(revision)?;
        let commit = folder.file_name()?.to_str()?;
        let text = fs::read(self.part_list(commit, part)).ok()?;
        let names: Vec<String> = serde_json::from_slice(&text).ok()?;
        let file =
            |name: &String| Some(folder.join(name)).filter(|path| is_path(name) && path.is_file());
        let found: Option<Vec<PathBuf>> = names.iter().map(file).collect();
        found.filter(|files| !files.is_empty())
    }
}

impl Hub {
    /// The files of a part of a data set, in the order of their names.
    pub(in crate::source) fn data_files(
        &self,
        part: &Part<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, SourceError> {
        let repository = Repository::new(&self.environment.cache, Kind::DataSet, part.id);
        let revisions: &[&str] = match &part.revision {
            Some(revision) => &[*revision],
            None => &[CONVERTED, "main"],
        };
        let kept = revisions
            .iter()
            .find_map(|revision| repository.kept(revision, part));
        match kept {
            Some(files) => Ok(files),
            None if self.environment.offline => Err(SourceError::NotCached {
                model: part.id.to_owned(),
                cache: self.environment.cache.clone(),
                reason: "HF_HUB_OFFLINE is set",
                remedy: "unset it to download the data set, or give the paths of files",
            }),
            None => self.download_data(part, revisions, &repository, progress),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download_data(
        &self,
        part: &Part<'_>,
        _: &[&str],
        _: &Repository,
        _: &dyn Progress,
    ) -> Result<Vec<PathBuf>, SourceError> {
        Err(SourceError::NotCached {
            model: part.id.to_owned(),
            cache: self.environment.cache.clone(),
            reason: "this program was built without the feature `hub`",
            remedy: "download the data set and give the paths of its files",
        })
    }

    #[cfg(feature = "hub")]
    fn download_data(
        &self,
        part: &Part<'_>,
        revisions: &[&str],
        repository: &Repository,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>, SourceError> {
        use super::{
            client::{Client, Fault},
            download::{Download, Problem},
            listing::{Announced, Listing},
            splits::Found,
        };
        use std::path::Path;
        let id = part.id;
        let client = Client::new(&self.environment, self.stop.clone());
        let client = client.map_err(|reason| self.misconfigured(id, reason))?;
        let mut instead = String::new();
        for (index, revision) in revisions.iter().enumerate() {
            let failed = |fault: Fault| self.failure(Kind::DataSet, id, revision, fault);
            progress.start(&format!("asking the hub for {id}"), None);
            let listing = Listing::read(&client, Kind::DataSet, id, revision);
            progress.finish();
            let last = index + 1 == revisions.len();
            let listing = match listing {
                // Not every data set is converted.
                Err(Fault::Status(status, _)) if status.as_u16() == 404 && !last => continue,
                other => other.map_err(failed)?,
            };
            let names = match part.find(revision, listing.names()) {
                Found::Files(names) => names,
                Found::Instead(there) => {
                    if instead.is_empty() {
                        instead = there;
                    }
                    continue;
                }
            };
            let download = Download {
                client: &client,
                repository,
                kind: Kind::DataSet,
                id,
                commit: &listing.commit,
                progress,
            };
            let unknown = Announced::default();
            for (index, name) in names.iter().enumerate() {
                let place = format!(" ({} of {})", index + 1, names.len());
                let announced = listing.announced(name).unwrap_or(&unknown);
                let there = download.file(name, announced, &place);
                there.map_err(|problem| match problem {
                    Problem::Fault(fault) => failed(fault),
                    Problem::Io(path, cause) => SourceError::Cache { path, cause },
                })?;
            }
            let list = repository.part_list(&listing.commit, part);
            let at = |path: &Path| {
                let path = path.to_owned();
                move |cause| SourceError::Cache { path, cause }
            };
            fs::create_dir_all(files::folder_of(&list)).map_err(at(&list))?;
            files::write(&list, serde_json::json!(names).to_string().as_bytes())
                .map_err(at(&list))?;
            if *revision != listing.commit {
                repository
                    .refer(revision, &listing.commit)
                    .map_err(at(&list))?;
            }
            let folder = repository.snapshot(&listing.commit);
            return Ok(names.iter().map(|name| folder.join(name)).collect());
        }
        Err(SourceError::NoSplit {
            id: id.to_owned(),
            part: match part.subset {
                Some(subset) => format!("split `{}` of the subset `{subset}`", part.split),
                None => format!("split `{}`", part.split),
            },
            instead,
        })
    }
}
