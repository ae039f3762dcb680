//! One disturbance: the run, the fault, and the call.

use super::scene::Kind;
use anyhow::{Context, Result};
use std::{collections::HashMap, fmt, str::FromStr};

/// Calls that change files; calls that a kernel lacks are left out of the trace (`?`).
pub(super) const CALLS: &str = "trace=?write,?writev,?pwrite64,?pwritev,?copy_file_range,?sendfile,?fallocate,\
    ?ftruncate,?fsync,?fdatasync,?sync_file_range,?msync,?open,?openat,?creat,?rename,?renameat,\
    ?renameat2,?unlink,?unlinkat,?rmdir,?mkdir,?mkdirat,?link,?linkat,?symlink,?symlinkat,?chmod,\
    ?fchmod,?fchmodat";

/// Fault at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The process is killed.
    Kill,
    /// The disk has no room.
    Full,
    /// The disk fails.
    Broken,
}

impl Fault {
    /// Option of strace.
    pub(crate) fn injection(self) -> &'static str {
        match self {
            Fault::Kill => "signal=SIGKILL",
            Fault::Full => "error=ENOSPC",
            Fault::Broken => "error=EIO",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Full => "full",
            Fault::Broken => "broken",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The `nth` time (from 1) that a run makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub kind: Kind,
    pub fault: Fault,
    pub call: String,
    pub nth: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            fault,
            call,
            nth,
        } = self;
        write!(f, "{}:{fault}:{call}:{nth}", kind.name())
    }
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let mut part = || parts.next().context("a point is RUN:FAULT:CALL:NUMBER");
        let (kind, fault) = (part()?, part()?);
        Ok(Self {
            kind: *Kind::ALL
                .iter()
                .find(|known| known.name() == kind)
                .with_context(|| format!("no run `{kind}`"))?,
            fault: [Fault::Kill, Fault::Full, Fault::Broken]
                .into_iter()
                .find(|known| known.name() == fault)
                .with_context(|| format!("no fault `{fault}`"))?,
            call: part()?.to_owned(),
            nth: part()?.parse().context("a point ends with a number")?,
        })
    }
}

/// Calls of a trace that change something in the folder `out`, by name and number. strace counts
/// separately for each thread, and so does this; all our calls come from one thread.
pub(super) fn calls(trace: &str) -> Vec<(String, u32)> {
    let mut counts = HashMap::<(&str, &str), u32>::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(char::is_whitespace) else {
            continue;
        };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        let ours = arguments.contains("/out/") || arguments.contains("\"out");
        let reads = name.starts_with("open")
            && !arguments.contains("O_CREAT")
            && !arguments.contains("O_WRONLY")
            && !arguments.contains("O_RDWR");
        if ours && !reads {
            found.push((name.to_owned(), *count));
        }
    }
    found
}

/// Error with which a call may fail.
pub(super) fn error_of(call: &str) -> Fault {
    let needs_room = [
        "write",
        "pwrite",
        "copy",
        "send",
        "fallocate",
        "open",
        "creat",
        "mk",
        "rename",
        "link",
        "sym",
    ];
    match needs_room.iter().any(|start| call.starts_with(start)) {
        true => Fault::Full,
        false => Fault::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_on_the_output_are_counted_among_all() {
        let trace = "\
7 openat(AT_FDCWD</x>, \"out/.lock\", O_RDONLY|O_CLOEXEC) = 3</x/out/.lock>
7 write(1</dev/null>, \"out\", 3) = 3
7 write(6</x/out/metrics.jsonl>, \"{}\", 2) = 2
8 write(6</x/out/metrics.jsonl>, \"{}\", 2 <unfinished ...>
7 openat(AT_FDCWD</x>, \"out/a\", O_WRONLY|O_CREAT, 0666) = 3</x/out/a>
8 <... write resumed>) = 2
7 mkdir(\"out\", 0777) = 0
7 --- SIGKILL {} ---
7 +++ exited with 0 +++
";
        let found = calls(trace);
        let found: Vec<(&str, u32)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            found,
            [
                ("write", 1),
                ("write", 2),
                ("write", 1),
                ("openat", 2),
                ("mkdir", 1)
            ]
        );
    }

    #[test]
    fn a_point_is_read_as_it_is_written() {
        let text = "lora:full:write:12";
        let point: Point = text.parse().unwrap();
        assert_eq!((point.fault, point.nth), (Fault::Full, 12));
        assert_eq!(point.to_string(), text);
        for wrong in [
            "",
            "lora:kill:write",
            "lora:kill:write:x",
            "a:kill:write:1",
            "lora:b:write:1",
        ] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }
}
