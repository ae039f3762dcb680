//! Ensures that a run does not write where it reads.

use super::{Output, is_written};
use crate::{
    Config, TrainError,
    paths::{canonical, relation},
};
use std::path::Path;

impl Output {
    /// Refuses an output folder that is the model, the adapter or the data of a configuration, holds
    /// one of them or lies in one. Data may lie in it where the run writes nothing.
    pub fn check_inputs(config: &Config) -> Result<(), TrainError> {
        keep_apart(&config.output, "the model", Path::new(&config.model))?;
        if let Some(adapter) = &config.adapter {
            keep_apart(&config.output, "the adapter", adapter)?;
        }
        for (what, files) in [
            ("training data", &config.data.train),
            ("evaluation data", &config.data.eval),
        ] {
            for file in files.iter().flat_map(|set| &set.path) {
                if relation(&config.output, file) != Some("holds") {
                    keep_apart(&config.output, what, file)?;
                } else if let Some(name) = written_over(&config.output, file)? {
                    let input = file.clone();
                    return Err(TrainError::OutputOverData { input, name });
                }
            }
        }
        Ok(())
    }

    /// Refuses one input of this kind (`the model`) that is the folder, lies in it or holds it. An
    /// input that does not exist causes no conflict.
    pub fn keep_apart(&self, what: &'static str, input: &Path) -> Result<(), TrainError> {
        keep_apart(&self.folder, what, input)
    }
}

/// Name of something that the run writes into its output folder at the place of `input`, if there
/// is one.
fn written_over(output: &Path, input: &Path) -> Result<Option<String>, TrainError> {
    let output = canonical(output);
    let place = canonical(input);
    let inside = place.strip_prefix(&output).ok();
    let Some(first) = inside.and_then(|inside| inside.components().next()) else {
        return Ok(None);
    };
    let name = first.as_os_str().to_string_lossy().into_owned();
    Ok(is_written(&output, &name)?.then_some(name))
}

/// Checks one input, by real places, whatever the paths look like.
fn keep_apart(output: &Path, what: &'static str, input: &Path) -> Result<(), TrainError> {
    match relation(output, input) {
        None => Ok(()),
        Some(relation) => Err(TrainError::OutputHoldsInput {
            output: output.to_owned(),
            relation,
            what,
            input: input.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn places_are_compared_and_not_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("runs/a/model")).unwrap();
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other/data.jsonl"), "").unwrap();
        let relation = |output: &str, input: &str| {
            let error = keep_apart(&at(output), "the model", &at(input)).err()?;
            let TrainError::OutputHoldsInput { relation, .. } = &error else {
                panic!("{error}");
            };
            Some(*relation)
        };
        assert_eq!(relation("runs/a", "runs/a/model"), Some("holds"));
        assert_eq!(relation("runs/a/model", "runs/a/model"), Some("is"));
        assert_eq!(
            relation("runs/a/model/new/run", "runs/a/model"),
            Some("lies in")
        );
        assert_eq!(
            relation("other/../runs/a", "runs/b/../a/model"),
            None,
            "runs/b is missing"
        );
        assert_eq!(
            relation("other/../runs/a", "other/../runs/a/model"),
            Some("holds")
        );
        assert_eq!(relation("other", "other/data.jsonl"), Some("holds"));
        assert_eq!(relation("other/new", "other/data.jsonl"), None);
        assert_eq!(relation("runs/another", "runs/a/model"), None);
        assert_eq!(relation("runs/a", "nowhere"), None);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("runs/a"), at("link")).unwrap();
            assert_eq!(relation("link", "runs/a/model"), Some("holds"));
            assert_eq!(relation("runs/a", "link/model"), Some("holds"));
            assert_eq!(relation("link/model/x", "runs/a/model"), Some("lies in"));
        }
    }
}
