//! Charts as one picture in SVG.

use super::{Bin, most};
use crate::numbers::grouped;
use plotters::{coord::Shift, prelude::*};

/// Columns with a caption.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What is counted.
    pub caption: &'a str,
    /// What the ranges are ranges of.
    pub axis: &'a str,
    /// The columns.
    pub bins: &'a [Bin],
}

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart cannot be drawn: {0}")]
pub struct ChartError(String);

const SIZE: (u32, u32) = (1200, 640);
/// Beginning of every picture, by which a program knows its own.
pub const BEGINNING: &str = "<svg width=\"1200\" height=\"640\"";

/// Draws charts of the same height, one below the other.
pub fn svg(charts: &[Chart<'_>]) -> Result<String, ChartError> {
    let mut svg = String::new();
    draw(&mut svg, charts).map_err(|error| ChartError(error.to_string()))?;
    Ok(svg)
}

fn draw(svg: &mut String, charts: &[Chart<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    for (chart, part) in charts.iter().zip(area.split_evenly((charts.len(), 1))) {
        columns(&part, chart)?;
    }
    area.present()?;
    Ok(())
}

fn columns(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    Chart {
        caption,
        axis,
        bins,
    }: &Chart<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let most = most(bins);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(100)
        .build_cartesian_2d(
            (0..bins.len().saturating_sub(1)).into_segmented(),
            0..most.saturating_add(most / 20 + 1),
        )?;
    let label = |value: &SegmentValue<usize>| match value {
        SegmentValue::CenterOf(bin) => bins.get(*bin).map_or(String::new(), |b| short(&b.label)),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(bins.len())
        .x_label_formatter(&label)
        .x_label_style(("sans-serif", 12))
        .x_desc(*axis)
        .y_label_formatter(&|count| grouped(*count))
        .y_label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    let bars = bins.iter().enumerate().map(|(index, bin)| {
        let corner = (SegmentValue::Exact(index), 0);
        let opposite = (SegmentValue::Exact(index + 1), bin.count);
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
    fn every_number_of_bins_can_be_drawn() {
        let bin = |count| Bin {
            label: "1,000,000–1,999,999".into(),
            count,
        };
        for counts in [&[][..], &[0], &[7], &[0, u64::MAX]] {
            let bins: Vec<Bin> = counts.iter().map(|&count| bin(count)).collect();
            let chart = Chart {
                caption: "Sequences by length",
                axis: "tokens",
                bins: &bins,
            };
            let svg = svg(&[chart.clone(), chart]).unwrap();
            assert_eq!(svg.matches("Sequences by length").count(), 2);
            assert!(svg.starts_with(BEGINNING));
            assert!(!svg.contains("1,999,999"), "labels are short");
        }
        assert!(svg(&[]).unwrap().starts_with(BEGINNING));
    }
}
