//! The hub: files in the standard cache are used as they are; missing files are downloaded.
//!
//! Nothing from the hub is trusted: a file name must be a plain name or a hash, sizes and hashes
//! must agree, every wait has a limit, and only the hub's own host sees the token. The reference
//! (`refs/main`) is written after the last file, so that a partial download is never mistaken for a
//! whole model.

mod cache;
#[cfg(feature = "hub")]
mod client;
mod data;
#[cfg(feature = "hub")]
mod download;
mod environment;
#[cfg(feature = "hub")]
mod failure;
#[cfg(feature = "hub")]
mod listing;
mod names;
#[cfg(feature = "hub")]
mod partial;
#[cfg(feature = "hub")]
mod replies;
#[cfg(feature = "hub")]
mod splits;

pub(crate) use data::Part;
pub use environment::{Environment, Secret};

use super::SourceError;
use cache::Repository;
use std::{env, path::PathBuf};
use tightrope_data::Progress;
use tightrope_train::StopFlag;

/// Kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    DataSet,
}

impl Kind {
    /// Name in addresses and in the cache.
    fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::DataSet => "datasets",
        }
    }
}

#[cfg(feature = "hub")]
impl Kind {
    /// First part of the addresses of pages and files.
    fn root(self) -> Option<&'static str> {
        (self != Kind::Model).then_some(self.plural())
    }

    /// Name for people.
    fn noun(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::DataSet => "data set",
        }
    }
}

/// The hub and its cache.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Address of the hub and place of its cache.
    pub environment: Environment,
    /// Ends waits and downloads.
    pub stop: StopFlag,
}

impl Hub {
    /// Reads the environment of the process; `stop` ends waits and downloads.
    pub fn from_env(stop: &StopFlag) -> Self {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            environment: Environment::from_variables(variable),
            stop: stop.clone(),
        }
    }

    /// Folder with the files of a model.
    pub(super) fn folder(
        &self,
        id: &str,
        revision: &str,
        progress: &dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        let repository = Repository::new(&self.environment.cache, Kind::Model, id);
        match repository.cached(revision) {
            Some(folder) if cache::has_weights(&folder) => Ok(folder),
            _ if self.environment.offline => Err(SourceError::NotCached {
                model: id.to_owned(),
                cache: self.environment.cache.clone(),
                reason: "HF_HUB_OFFLINE is set",
                remedy: "unset it to download the model, or give the path of a folder",
            }),
            _ => self.download(id, revision, &repository, progress),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download(
        &self,
        id: &str,
        _: &str,
        _: &Repository,
        _: &dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        Err(SourceError::NotCached {
            model: id.to_owned(),
            cache: self.environment.cache.clone(),
            reason: "this program was built without the feature `hub`",
            remedy: "download the model and give the path of its folder",
        })
    }

    #[cfg(feature = "hub")]
    fn download(
        &self,
        id: &str,
        revision: &str,
        repository: &Repository,
        progress: &dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        use client::{Client, Fault};
        use download::{Download, Problem};
        let failed = |fault: Fault| self.failure(Kind::Model, id, revision, fault);
        let client = Client::new(&self.environment, self.stop.clone());
        let client = client.map_err(|reason| self.misconfigured(id, reason))?;
        progress.start(&format!("asking the hub for {id}"), None);
        let listing = listing::Listing::read(&client, Kind::Model, id, revision);
        progress.finish();
        let listing = listing.map_err(failed)?;
        let weights = listing.weights().ok_or_else(|| SourceError::NoWeights {
            model: id.to_owned(),
            reason: listing.without_weights(),
        })?;
        // All files belong to one commit, even if the branch moves on meanwhile.
        let download = Download {
            client: &client,
            repository,
            kind: Kind::Model,
            id,
            commit: &listing.commit,
            progress,
        };
        let get = |name: &str, place: &str| {
            let announced = listing.announced(name).ok_or_else(|| {
                let reason = "the index names it, but the repository does not have it".to_owned();
                failed(Fault::Wrong(reason).about(name))
            })?;
            let there = download.file(name, announced, place);
            there.map_err(|problem| match problem {
                Problem::Fault(fault) => failed(fault),
                Problem::Io(path, cause) => SourceError::Cache { path, cause },
            })
        };
        for name in listing.besides(&weights) {
            get(name, "")?;
        }
        let folder = repository.snapshot(&listing.commit);
        match weights {
            listing::Weights::File(name) => get(name, "")?,
            listing::Weights::Index => {
                get(listing::INDEX, "")?;
                let shards = cache::shards(&folder.join(listing::INDEX));
                let shards = shards.map_err(|reason| {
                    failed(Fault::Wrong(replies::plain(&reason)).about(listing::INDEX))
                })?;
                for (index, shard) in shards.iter().enumerate() {
                    get(shard, &format!(" ({} of {})", index + 1, shards.len()))?;
                }
            }
        }
        if revision != listing.commit {
            let referred = repository.refer(revision, &listing.commit);
            referred.map_err(|cause| SourceError::Cache {
                path: folder.clone(),
                cause,
            })?;
        }
        Ok(folder)
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests;
