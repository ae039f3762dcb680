//! Reads the last output of libFuzzer.

use std::path::PathBuf;

/// Result of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub inputs: u64,
    /// Number of branches of our crates that some input took.
    pub branches: u64,
    pub peak_megabytes: u64,
    /// Description of the fault in one line, and the input; without a path if libFuzzer did not
    /// write it.
    pub fault: Option<(String, PathBuf)>,
}

/// Reads the log of a run.
pub(super) fn read(text: &str, success: bool) -> Ended {
    let after = |mark: &str| {
        let found = text.lines().rev().find_map(|line| line.split_once(mark));
        found.map(|(_, rest)| rest.trim())
    };
    let number = |mark| {
        let word = after(mark).and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let input = after("Test unit written to ").map(PathBuf::from);
    Ended {
        inputs: number("stat::number_of_executed_units:"),
        branches: number(" cov: "),
        peak_megabytes: number("stat::peak_rss_mb:"),
        fault: (!success).then(|| (reason(text), input.unwrap_or_default())),
    }
}

/// Most informative line.
fn reason(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let find = |mark: &str| lines.iter().position(|line| line.contains(mark));
    if let Some(at) = find("panicked at ") {
        let message = lines.get(at + 1).unwrap_or(&"");
        return format!("{} {message:.200}", lines[at]);
    }
    for mark in [
        "has overflowed its stack",
        "memory allocation of ",
        "ERROR: libFuzzer: ",
    ] {
        if let Some(at) = find(mark) {
            let line = lines[at];
            // The process id would make every fault a different one.
            let start = line.find("ERROR: ").unwrap_or(0);
            return line[start..].to_owned();
        }
    }
    "ended without a word, as by an exhausted stack".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATISTICS: &str = "#9\tNEW    cov: 12 ft: 3\n#90\tDONE   cov: 34 ft: 5 corp: 6/7b\n\
        stat::number_of_executed_units: 90\nstat::peak_rss_mb:              41\n";

    #[test]
    fn an_uneventful_run_gives_its_numbers() {
        let expected = Ended {
            inputs: 90,
            branches: 34,
            peak_megabytes: 41,
            fault: None,
        };
        assert_eq!(read(STATISTICS, true), expected);
    }

    #[test]
    fn a_fault_is_told_in_a_line_with_its_input() {
        let text = "panicked at a.rs:1:2:\nout of range\n==7== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='./'; Test unit written to ./crash-1\n";
        let found = read(&format!("{text}{STATISTICS}"), false).fault.unwrap();
        assert_eq!(found.0, "panicked at a.rs:1:2: out of range");
        assert_eq!(found.1, PathBuf::from("./crash-1"));
        let text = "==7== ERROR: libFuzzer: timeout after 20 seconds";
        let found = read(text, false).fault.unwrap();
        assert_eq!(found.0, "ERROR: libFuzzer: timeout after 20 seconds");
        assert_eq!(found.1, PathBuf::new());
    }
}
