//! The chart: for each series, what an update costs with each program, on a logarithmic scale.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::outcome::{Base, OURS, Outcome, Row};
use super::report::size;

const WIDTH: u32 = 960;
const HEADER: u32 = 44;
const ROW: u32 = 19;
/// Above and below a panel's rows: its title, its axis.
const AROUND: u32 = 72;
const NAMES: u32 = 152;
const VALUES: u32 = 72;
const POINT: i32 = 5;

const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const FAINT: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
const PEER: RGBColor = RGBColor(0x6b, 0x7a, 0x8c);
const OWN: RGBColor = RGBColor(0xc4, 0x3e, 0x1c);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The chart as SVG.
pub fn draw(outcomes: &[Outcome]) -> Result<String> {
    let mut svg = String::new();
    let rows = outcomes.iter().map(|outcome| shown(outcome).len() as u32).max().unwrap_or(0);
    let panel = rows * ROW + AROUND;
    let lines = outcomes.len().div_ceil(2) as u32;
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEADER + lines * panel)).into_drawing_area();
        root.fill(&WHITE)?;
        let (header, body) = root.split_vertically(HEADER);
        legend(&header)?;
        for (outcome, area) in outcomes.iter().zip(body.split_evenly((lines as usize, 2))) {
            series(outcome, &area, rows)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// The programs that know updates, who needs least first.
fn shown(outcome: &Outcome) -> Vec<&Row> {
    let mut rows: Vec<&Row> = outcome.rows.iter().filter(|row| row.bytes(Base::Near).is_some()).collect();
    rows.sort_by_key(|row| row.bytes(Base::Near));
    rows
}

fn text(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

fn legend(area: &Area) -> Result<()> {
    area.draw(&Text::new("Bytes of an update to the newest release, logarithmic", (12, 14), text(16, INK)))?;
    let mut at = 560;
    for (base, words) in [(Base::Near, "from the release before"), (Base::Far, "from three before")] {
        area.draw(&point((at, 22), base, PEER))?;
        area.draw(&Text::new(words, (at + 12, 16), text(13, INK)))?;
        at += 205;
    }
    Ok(())
}

fn point<C>(at: C, base: Base, color: RGBColor) -> Circle<C, i32> {
    let style = ShapeStyle { color: color.to_rgba(), filled: base == Base::Near, stroke_width: 2 };
    Circle::new(at, POINT, style)
}

fn series(outcome: &Outcome, area: &Area, rows: u32) -> Result<()> {
    let shown = shown(outcome);
    let names: Vec<&str> = shown.iter().map(|row| row.program.as_str()).collect();
    let points =
        |row: &Row| [row.bytes(Base::Near), row.bytes(Base::Far)].into_iter().flatten().map(|bytes| bytes as f64);
    let least = shown.iter().flat_map(|row| points(row)).fold(f64::MAX, f64::min);
    let most = shown.iter().flat_map(|row| points(row)).fold(1.0, f64::max);
    // Whole decades, so that the axis has at least two figures.
    let decade = |bytes: f64| 10_f64.powf(bytes);
    let (low, high) = (decade((least * 0.9).log10().floor()), decade((most * 1.1).log10().ceil()));
    let title = match outcome.step(Base::Near) {
        Some((old, new)) => format!("{} {new} (before: {old})", outcome.series),
        None => outcome.series.clone(),
    };
    // As many rows in every panel, so that they are alike: the last may be empty.
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(15, INK))
        .margin(10)
        .margin_right(VALUES)
        .x_label_area_size(26)
        .y_label_area_size(NAMES)
        .build_cartesian_2d((low..high).log_scale(), (0..rows as i32 - 1).into_segmented())?;
    let row_at = |at: usize| SegmentValue::CenterOf(rows as i32 - 1 - at as i32);
    let name_of = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(at) => {
            let at = usize::try_from(rows as i32 - 1 - at).unwrap_or(usize::MAX);
            names.get(at).map_or(String::new(), |name| (*name).to_owned())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(FAINT)
        .x_labels(4)
        .y_labels(rows as usize)
        .x_label_formatter(&|bytes| size(*bytes as u64).replace(".00", "").replace(".0", ""))
        .y_label_formatter(&name_of)
        .x_label_style(text(12, INK))
        .y_label_style(text(13, INK))
        .draw()?;
    for (at, row) in shown.iter().enumerate() {
        let color = if row.program == OURS { OWN } else { PEER };
        let updates = [Base::Far, Base::Near].map(|base| (base, row.bytes(base)));
        for (base, bytes) in updates {
            let Some(bytes) = bytes else { continue };
            let (start, end) = ((low, row_at(at)), (bytes as f64, row_at(at)));
            if base == Base::Near {
                chart.draw_series([PathElement::new([start, end.clone()], color.stroke_width(1))])?;
            }
            chart.draw_series([point(end, base, color)])?;
        }
        let value = size(row.bytes(Base::Near).unwrap_or_default());
        let beside = EmptyElement::at((high, row_at(at))) + Text::new(value, (8, -7), text(13, color));
        chart.draw_series([beside])?;
    }
    Ok(())
}
