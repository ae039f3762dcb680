//! Draws lengths and the fill of packs: bars in the terminal, SVG in a file.

use plotters::prelude::*;
use tightrope_data::packing::Histogram;

use crate::numbers::grouped;

const BINS: usize = 16;
const BAR: f64 = 48.0;

/// Number of packs by used share of the capacity.
pub(super) struct Fill {
    /// Numbers in the order of [`LIMITS`].
    packs: Vec<u64>,
}

/// Percentages at which a bin of [`Fill`] begins: bins are finer for fuller packs.
const LIMITS: [u64; 8] = [0, 25, 50, 75, 90, 95, 99, 100];

impl Fill {
    /// Counts packs from `(tokens, number of packs)`.
    pub(super) fn new(capacity: u64, packs: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut fill = Self {
            packs: vec![0; LIMITS.len()],
        };
        for (tokens, count) in packs {
            let share = u128::from(tokens) * 100 / u128::from(capacity.max(1));
            let bin = LIMITS.partition_point(|&limit| u128::from(limit) <= share) - 1;
            fill.packs[bin] += count;
        }
        fill
    }

    fn bins(&self) -> Vec<(String, u64)> {
        let label = |bin: usize| match LIMITS.get(bin + 1) {
            Some(next) => format!("{}–{next} %", LIMITS[bin]),
            None => "100 %".into(),
        };
        let packs = self.packs.iter().enumerate();
        packs.map(|(bin, &count)| (label(bin), count)).collect()
    }

    /// Draws one line per bin.
    pub(super) fn bars(&self) -> String {
        bars(&self.bins())
    }
}

/// Draws the histogram in a few bins, one per line.
pub(super) fn lengths(histogram: &Histogram) -> String {
    bars(&length_bins(histogram))
}

fn length_bins(histogram: &Histogram) -> Vec<(String, u64)> {
    let longest = u64::from(histogram.max_length());
    let width = (longest + 1).div_ceil(BINS as u64).max(1);
    let used = longest / width + 1;
    let label = |bin| match width {
        1 => grouped(bin),
        _ => format!(
            "{}–{}",
            grouped(bin * width),
            grouped((bin + 1) * width - 1)
        ),
    };
    let mut bins: Vec<(String, u64)> = (0..used).map(|bin| (label(bin), 0)).collect();
    for &(length, count) in histogram.entries() {
        bins[(u64::from(length) / width) as usize].1 += count;
    }
    bins
}

fn bars(bins: &[(String, u64)]) -> String {
    let most = bins.iter().map(|bin| bin.1).max().unwrap_or(0).max(1);
    let label_width = bins
        .iter()
        .map(|bin| bin.0.chars().count())
        .max()
        .unwrap_or(0);
    let line = |(label, count): &(String, u64)| {
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

/// Draws both charts, one above the other.
pub(super) fn svg(
    title: &str,
    histogram: &Histogram,
    fill: Option<&Fill>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (1200, 640)).into_drawing_area();
        area.fill(&WHITE)?;
        let halves = area.split_evenly((2, 1));
        let bins = length_bins(histogram);
        columns(&halves[0], "Sequences by length", "tokens", &bins)?;
        if let Some(fill) = fill {
            let caption = format!("Packs by how full they are ({title})");
            columns(&halves[1], &caption, "share of the capacity", &fill.bins())?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn columns(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    what: &str,
    bins: &[(String, u64)],
) -> anyhow::Result<()> {
    let most = bins.iter().map(|bin| bin.1).max().unwrap_or(0).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(100)
        .build_cartesian_2d(
            (0..bins.len() - 1).into_segmented(),
            0..most.saturating_add(most / 20 + 1),
        )?;
    let label = |value: &SegmentValue<usize>| match value {
        SegmentValue::CenterOf(bin) => bins.get(*bin).map_or(String::new(), |b| short(&b.0)),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(bins.len())
        .x_label_formatter(&label)
        .x_label_style(("sans-serif", 12))
        .x_desc(what)
        .y_label_formatter(&|count| grouped(*count))
        .y_label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    let bars = bins.iter().enumerate().map(|(bin, (_, count))| {
        let corner = (SegmentValue::Exact(bin), 0);
        let opposite = (SegmentValue::Exact(bin + 1), *count);
        let mut bar = Rectangle::new([corner, opposite], RGBColor(70, 110, 190).filled());
        bar.set_margin(0, 0, 2, 2);
        bar
    });
    chart.draw_series(bars)?;
    Ok(())
}

/// Short label below a column: for a long range only its beginning.
fn short(label: &str) -> String {
    match label.split_once('–') {
        Some((start, _)) if label.chars().count() > 11 => format!("{start}–"),
        _ => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_and_pack_is_in_a_bin() {
        for longest in [0, 1, 15, 16, 17, u32::MAX] {
            let histogram = Histogram::from_pairs([(0, 2), (longest, 3)]).unwrap();
            let bins = length_bins(&histogram);
            assert!(bins.len() <= BINS);
            assert_eq!(bins.iter().map(|bin| bin.1).sum::<u64>(), 5);
            assert!(svg("", &histogram, None).unwrap().contains("<svg"));
        }
        let fill = Fill::new(
            1000,
            [(1, 1), (989, 2), (990, 4), (999, 8), (1000, 16)].into_iter(),
        );
        assert_eq!(fill.packs, [1, 0, 0, 0, 0, 2, 12, 16]);
        assert_eq!(fill.bars().lines().count(), LIMITS.len());
    }
}
