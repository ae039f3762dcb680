//! Charts of counted things: bars in a terminal, SVG in a file.

#[cfg(feature = "svg")]
mod svg;

#[cfg(feature = "svg")]
pub use svg::{BEGINNING, Chart, ChartError, svg};

use crate::numbers::grouped;

/// Number of things in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    /// The range: `0–25 %`.
    pub label: String,
    /// The number.
    pub count: u64,
}

/// Number of characters of the longest bar.
const BAR: f64 = 48.0;

/// Draws a bar for each bin, each on a line of its own; every bin that is not empty has a bar.
pub fn bars(bins: &[Bin]) -> String {
    let label_width = bins.iter().map(|bin| bin.label.chars().count());
    let label_width = label_width.max().unwrap_or(0);
    let most = most(bins);
    let line = |Bin { label, count }: &Bin| {
        let eighths = (*count as f64 / most as f64 * BAR * 8.0).ceil() as usize;
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        format!(
            "{label:>label_width$} {}{rest} {}\n",
            "█".repeat(eighths / 8),
            grouped(*count)
        )
    };
    bins.iter().map(line).collect()
}

/// The largest number, at least 1.
fn most(bins: &[Bin]) -> u64 {
    bins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_has_the_whole_bar_and_the_smallest_is_seen() {
        let bin = |label: &str, count| Bin {
            label: label.into(),
            count,
        };
        let text = bars(&[bin("0–9", 0), bin("10–19", 1), bin("20", 4_000)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["  0–9  0", "10–19 ▏ 1"]);
        assert_eq!(lines[2], format!("   20 {} 4,000", "█".repeat(48)));
        assert_eq!(bars(&[]), "");
    }
}
