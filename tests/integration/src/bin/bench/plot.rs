//! The plot of the cost by the number of policies.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use spiffe_authz_integration::bootstrap::Adapter;

use crate::load::Measured;
use crate::policies::Kind;
use crate::report::Results;
use crate::statistics::median;
use crate::variants::Decider;

const SIZE: (u32, u32) = (760, 440);
const FONT: &str = "sans-serif";
/// The lowest cost on the logarithmic axis. A lower cost is within the noise of no filter, and is drawn here.
const LEAST: f64 = 0.5;

const LINES: [(Decider, RGBColor); 4] = [
    (Decider::IstiosRbac, RGBColor(0xc0, 0x39, 0x2b)),
    (Decider::MatcherTree, RGBColor(0x8e, 0x6c, 0x3a)),
    (Decider::Ours(Adapter::Wasm), RGBColor(0x1f, 0x77, 0xb4)),
    (Decider::Ours(Adapter::Module), RGBColor(0x2c, 0x8a, 0x4b)),
];

/// Draws the cost over no filter as an SVG file.
pub(crate) fn draw(file: &Path, measured: &[Measured]) -> Result<()> {
    let results = Results(measured);
    let mut lines = Vec::new();
    for (decider, color) in LINES {
        let mut points = Vec::new();
        for Measured { subject, .. } in measured.iter().filter(|measured| measured.subject.decider == decider) {
            if let Some((Kind::Paths, count)) = subject.policies {
                points.push((f64::from(count), results.over_no_filter(*subject)?.max(LEAST)));
            }
        }
        lines.push((decider, color, points));
    }
    let bare = measured.iter().find(|measured| measured.subject.decider == Decider::Nothing);
    let bare = bare.map_or(0.0, |measured| median(&measured.request));
    let highest = lines.iter().flat_map(|(_, _, points)| points).map(|(_, cost)| *cost).fold(LEAST, f64::max);

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    let drawn = |error: DrawingAreaErrorKind<_>| anyhow!("cannot draw {}: {error}", file.display());
    area.fill(&WHITE).map_err(drawn)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Envoy's CPU time per request, over the {bare:.0} µs without a filter"), (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((0.8..13_000.0).log_scale(), (LEAST..highest * 1.5).log_scale())
        .map_err(drawn)?;
    chart
        .configure_mesh()
        .x_desc("policies")
        .y_desc("µs")
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&|cost| format!("{cost}"))
        .light_line_style(WHITE)
        .draw()
        .map_err(drawn)?;
    for (decider, color, points) in lines {
        let circles = points.clone().into_iter().map(move |point| Circle::new(point, 4, color.filled()));
        chart.draw_series(circles).map_err(drawn)?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))
            .map_err(drawn)?
            .label(decider.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 15))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(drawn)?;
    area.present().map_err(drawn)
}
