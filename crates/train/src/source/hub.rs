//! The hub: what is in the standard cache is used as it is; what is missing is downloaded.
//!
//! The reference (`refs/main`) is written after the last file, so that a model that was only partly
//! downloaded is never taken for a whole one.

use super::SourceError;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tightrope_data::Progress;

/// Where the hub is and where its files are kept, as the variables of the environment say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in `~/.cache/huggingface`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`, or the public hub.
    pub endpoint: String,
    /// `HF_TOKEN`, or the file that `HF_TOKEN_PATH` names, or `token` in `HF_HOME`.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub offline: bool,
}

impl Hub {
    /// From the environment of the process.
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let user = || PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache");
            cache.unwrap_or_else(user).join("huggingface")
        });
        let path = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let stored = || fs::read_to_string(path).ok();
        let token = variable("HF_TOKEN").or_else(stored);
        let truth = |value: String| {
            ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
        };
        Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: variable("HF_ENDPOINT")
                .map(|endpoint| endpoint.trim_end_matches('/').to_owned())
                .unwrap_or_else(|| "https://huggingface.co".into()),
            token: token
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(truth),
        }
    }

    /// The folder with the files of a model.
    pub(super) fn folder(
        &self,
        id: &str,
        revision: &str,
        progress: &dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        match self.cached(id, revision) {
            Some(folder) if has_weights(&folder) => Ok(folder),
            _ if self.offline => Err(SourceError::NotCached {
                model: id.to_owned(),
                cache: self.cache.clone(),
                reason: "HF_HUB_OFFLINE is set",
                remedy: "unset it to download the model, or give the path of a folder",
            }),
            _ => self.download(id, revision, progress),
        }
    }

    fn repository(&self, id: &str) -> PathBuf {
        self.cache
            .join(format!("models--{}", id.replace('/', "--")))
    }

    fn cached(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let repository = self.repository(id);
        let commit = fs::read_to_string(repository.join("refs").join(revision));
        let commit = commit.unwrap_or_else(|_| revision.to_owned());
        let folder = repository.join("snapshots").join(commit.trim());
        folder.is_dir().then_some(folder)
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, id: &str, _: &str, _: &dyn Progress) -> Result<PathBuf, SourceError> {
        Err(SourceError::NotCached {
            model: id.to_owned(),
            cache: self.cache.clone(),
            reason: "this program was built without the feature `hub`",
            remedy: "download the model and give the path of its folder",
        })
    }

    #[cfg(feature = "hub")]
    fn download(
        &self,
        id: &str,
        revision: &str,
        progress: &dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        use hf_hub::{Repo, RepoType, api::sync::ApiBuilder};
        let failed = |error: hf_hub::api::sync::ApiError| self.failure(id, &error);
        let api = ApiBuilder::new()
            .with_cache_dir(self.cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(3)
            .build()
            .map_err(failed)?;
        let named = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        let info = api.repo(named).info().map_err(failed)?;
        let names: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        let wanted = wanted(&names).ok_or_else(|| SourceError::NoWeights {
            model: id.to_owned(),
            found: names.join(", "),
        })?;
        // All files of one commit, even if the branch moves on meanwhile.
        let commit = Repo::with_revision(id.to_owned(), RepoType::Model, info.sha.clone());
        let repository = api.repo(commit);
        for name in wanted {
            let cached = self
                .repository(id)
                .join("snapshots")
                .join(&info.sha)
                .join(name);
            if !cached.exists() {
                let report = Download {
                    progress,
                    started: false,
                };
                repository
                    .download_with_progress(name, report)
                    .map_err(failed)?;
            }
        }
        let folder = self.repository(id);
        write_reference(&folder.join("refs").join(revision), &info.sha).map_err(|error| {
            SourceError::Hub {
                model: id.to_owned(),
                endpoint: self.endpoint.clone(),
                reason: format!("{}: {error}", folder.display()),
                remedy: "check that the cache folder can be written",
            }
        })?;
        Ok(folder.join("snapshots").join(&info.sha))
    }

    #[cfg(feature = "hub")]
    fn failure(&self, id: &str, error: &hf_hub::api::sync::ApiError) -> SourceError {
        let reason = error.to_string();
        let status = |code: &str| reason.contains(&format!("status code {code}"));
        let remedy = if status("401") || status("403") {
            "if the model exists, accept its terms on the hub and set HF_TOKEN"
        } else if status("404") {
            "check the spelling of the id and the revision"
        } else {
            "check the network and HF_ENDPOINT, or give the path of a folder"
        };
        SourceError::Hub {
            model: id.to_owned(),
            endpoint: self.endpoint.clone(),
            reason,
            remedy,
        }
    }
}

#[cfg(feature = "hub")]
fn write_reference(path: &Path, commit: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    crate::temporary::write(path, commit.as_bytes())
}

/// Whether every weight file is there: one file, all shards of the index, or a `.gguf`.
fn has_weights(folder: &Path) -> bool {
    let index = folder.join("model.safetensors.index.json");
    match fs::read(&index) {
        Ok(text) => serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|index| {
                let shards = index.get("weight_map")?.as_object()?;
                let there = |name: &serde_json::Value| {
                    name.as_str().is_some_and(|name| folder.join(name).exists())
                };
                Some(shards.values().all(there))
            })
            .unwrap_or(false),
        Err(_) if folder.join("config.json").exists() => folder.join("model.safetensors").exists(),
        Err(_) => fs::read_dir(folder).is_ok_and(|entries| {
            let mut names = entries.flatten().map(|entry| entry.path());
            names.any(|path| path.extension().is_some_and(|e| e == "gguf"))
        }),
    }
}

/// The files to download, the weights last; `None` if there are no weights to choose.
#[cfg(feature = "hub")]
fn wanted(names: &[String]) -> Option<Vec<&str>> {
    const BESIDES: &[&str] = &[
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ];
    // A name with a folder in it is none of these, and would be written elsewhere.
    let names = || {
        names
            .iter()
            .map(String::as_str)
            .filter(|n| !n.contains(['/', '\\']))
    };
    let besides = names().filter(|name| BESIDES.contains(name));
    let ending = |end: &'static str| names().filter(move |name| name.ends_with(end));
    let index = "model.safetensors.index.json";
    let weights: Vec<&str> = if names().any(|name| name == "model.safetensors") {
        vec!["model.safetensors"]
    } else if names().any(|name| name == index) {
        let shards = ending(".safetensors").filter(|name| name.starts_with("model-"));
        std::iter::once(index).chain(shards).collect()
    } else {
        let files: Vec<&str> = ending(".gguf").collect();
        (files.len() == 1).then_some(files)?
    };
    Some(besides.chain(weights).collect())
}

#[cfg(feature = "hub")]
struct Download<'a> {
    progress: &'a dyn Progress,
    started: bool,
}

#[cfg(feature = "hub")]
impl hf_hub::api::Progress for Download<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        // The client says so once before and once at the first byte.
        if !std::mem::replace(&mut self.started, true) {
            self.progress.start(filename, Some(size as u64));
        }
    }
    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
    }
    fn finish(&mut self) {
        self.progress.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_as_for_the_python_client() {
        let hub = |variables: &[(&str, &str)]| {
            Hub::from_variables(|name| {
                let found = variables.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let plain = hub(&[("HOME", "/users/a")]);
        assert_eq!(plain.cache, Path::new("/users/a/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert!(!plain.offline && plain.token.is_none());
        let all = hub(&[
            ("HOME", "/users/a"),
            ("HF_HOME", "/hf"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(all.cache, Path::new("/hf/hub"));
        assert_eq!(all.endpoint, "http://mirror");
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert!(all.offline);
        assert_eq!(hub(&[("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
