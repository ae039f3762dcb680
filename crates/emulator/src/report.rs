//! Writes counts to the file that the environment names: one line for each launch or call.

use crate::Counters;
use std::{env, fmt, fs, io::Write, str::FromStr};

/// The environment variable that names the file. Without it nothing is written.
pub const VARIABLE: &str = "TIGHTROPE_EMULATOR_REPORT";

/// Origin of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// PTX was executed.
    Executed,
    /// A formula of the sizes: no implementation has lower counts.
    Formula,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Executed => "executed",
            Source::Formula => "by formula",
        }
    }
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name of the kernel or call.
    pub name: String,
    /// Origin of the counts.
    pub source: Source,
    /// Grid and block, or other sizes.
    pub sizes: String,
    /// The counts.
    pub counters: Counters,
}

impl Entry {
    /// Whether a report is requested.
    pub fn is_wanted() -> bool {
        env::var_os(VARIABLE).is_some()
    }

    /// Appends the line to the file that [`VARIABLE`] names, if it is set.
    pub fn append(&self) {
        let Some(path) = env::var_os(VARIABLE) else {
            return;
        };
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        let line = format!("{self}\n");
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("emulator: {}: {error}", path.display());
        }
    }
}

/// Name, source, sizes and each count with its name, with tabs between them.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            source,
            sizes,
            counters,
        } = self;
        write!(f, "{name}\t{}\t{sizes}\t{counters}", source.name())
    }
}

/// Parses the output of [`Display`](fmt::Display); the error is the part that is missing or wrong.
impl FromStr for Entry {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut parts = line.splitn(4, '\t');
        let mut part = |what: &str| parts.next().ok_or_else(|| what.to_owned());
        let name = part("name")?.to_owned();
        let source = part("source")?;
        let known = [Source::Executed, Source::Formula];
        let mut known = known.into_iter();
        Ok(Self {
            name,
            source: known
                .find(|known| known.name() == source)
                .ok_or_else(|| source.to_owned())?,
            sizes: part("sizes")?.to_owned(),
            counters: part("counts")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for source in [Source::Executed, Source::Formula] {
            let entry = Entry {
                name: "product".into(),
                source,
                sizes: "[2, 3, 4]".into(),
                counters: Counters {
                    global_load_bytes: 5,
                    ..Counters::default()
                },
            };
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
    }

    #[test]
    fn what_is_wrong_in_a_line_is_named() {
        let error = |line: &str| line.parse::<Entry>().unwrap_err();
        assert_eq!(error("name"), "source");
        assert_eq!(error("name\tguessed\t[1]\tblocks 1"), "guessed");
        assert_eq!(error("name\texecuted"), "sizes");
        assert_eq!(error("name\texecuted\t[1]"), "counts");
        assert_eq!(error("name\texecuted\t[1]\tblocks 1"), "warp_instructions");
    }
}
