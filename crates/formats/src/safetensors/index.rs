//! `model.safetensors.index.json` says which file of its folder holds each tensor.

use super::header::Entries;
use crate::{FormatError, LARGEST_HEADER, MOST_TENSORS, diagnosis};
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::BufReader,
    path::Path,
};

/// Names of the tensors in each file that the index at `index` names. A file must be a plain name,
/// so that nothing outside the folder is ever opened.
pub fn read_index(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, FormatError> {
    let damaged = |reason: String| FormatError::Damaged {
        file: index.to_path_buf(),
        reason,
    };
    let file = File::open(index).map_err(FormatError::io(index))?;
    let length = file.metadata().map_err(FormatError::io(index))?.len();
    if length > LARGEST_HEADER {
        let reason = format!("has {length} bytes, more than {LARGEST_HEADER}");
        return Err(damaged(reason));
    }
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut count, mut failed) = (0, None);
    let mut take = |tensor: String, file: Box<RawValue>| {
        let Ok(file) = serde_json::from_str::<String>(file.get()) else {
            return Err(damaged(format!("`{tensor}` names no file: {file}")));
        };
        if Path::new(&file).file_name() != Some(file.as_ref()) {
            return Err(damaged(format!(
                "`{file}` is not the name of a file in this folder"
            )));
        }
        count += 1;
        if count > MOST_TENSORS {
            return Err(damaged(format!("names more than {MOST_TENSORS} tensors")));
        }
        // The file is looked up first, so that each file name is stored once.
        let tensors = match files.get_mut(&file) {
            Some(tensors) => tensors,
            None => files.entry(file).or_default(),
        };
        match tensors.insert(tensor.clone()) {
            true => Ok(()),
            false => Err(FormatError::Duplicate {
                file: index.to_path_buf(),
                tensor,
            }),
        }
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(file));
    let map = WeightMap(Entries {
        take: &mut take,
        failed: &mut failed,
    });
    let read = json.deserialize_map(map).and_then(|()| json.end());
    if let Some(error) = failed {
        return Err(error);
    }
    read.map_err(|source| {
        diagnosis::of(index).unwrap_or_else(|| FormatError::Json {
            file: index.to_path_buf(),
            source,
        })
    })?;
    Ok(files)
}

/// The object around `weight_map`.
struct WeightMap<'a>(Entries<'a>);

impl<'de> Visitor<'de> for WeightMap<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `weight_map`")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut entries = Some(self.0);
        while let Some(key) = map.next_key::<String>()? {
            match (key == "weight_map", entries.take()) {
                (true, Some(entries)) => map.next_value_seed(entries)?,
                (true, None) => return Err(M::Error::custom("`weight_map` appears twice")),
                (false, kept) => {
                    entries = kept;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match entries {
            None => Ok(()),
            Some(_) => Err(M::Error::custom("`weight_map` is missing")),
        }
    }
}
