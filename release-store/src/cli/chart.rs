//! A drawing of what updates download: two bars a version, what it takes now and the whole release.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use release_store::stats::{UpdateStats, Way};

use super::terminal;

const WIDTH: u32 = 900;
/// The height of a version's two bars and the space below, in pixels.
const ROW: u32 = 36;
const TOP: u32 = 56;
const LEFT: u32 = 170;
const RIGHT: u32 = 210;
/// More versions than these are not drawn, but the last ones.
const MAX_ROWS: usize = 200;

const NOW: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const WHOLE: RGBColor = RGBColor(0xcf, 0xd6, 0xdd);

/// `updates` as SVG. Bars are drawn by the length of what they stand for; a bar that is not to be seen has its number.
pub(super) fn updates(product: &str, updates: &[UpdateStats]) -> anyhow::Result<String> {
    let updates = &updates[updates.len().saturating_sub(MAX_ROWS)..];
    let height = TOP + ROW * (updates.len() as u32).max(1) + 16;
    let most = updates.iter().map(|update| update.bytes.max(update.whole_bytes)).max().unwrap_or(0).max(1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let text = |size: i32, h, v| ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(h, v));
        let title = format!("{product}: download to the newest release");
        area.draw(&Text::new(title, (16, 12), text(18, HPos::Left, VPos::Top)))?;
        if updates.is_empty() {
            area.draw(&Text::new("no older release", (16, TOP as i32), text(13, HPos::Left, VPos::Top)))?;
        }
        let legend = [(NOW, "update", WIDTH - 260), (WHOLE, "whole release", WIDTH - 160)];
        for (color, label, x) in legend {
            let x = x as i32;
            area.draw(&Rectangle::new([(x, 16), (x + 12, 28)], color.filled()))?;
            area.draw(&Text::new(label, (x + 18, 22), text(13, HPos::Left, VPos::Center)))?;
        }
        let across = f64::from(WIDTH - LEFT - RIGHT);
        for (at, update) in updates.iter().enumerate() {
            let top = (TOP + ROW * at as u32) as i32;
            let name = format!("{} → {}", short(&update.version), short(&update.to));
            area.draw(&Text::new(name, (LEFT as i32 - 10, top + 14), text(13, HPos::Right, VPos::Center)))?;
            let way = match update.way {
                Way::Steps(1) => " by step".to_owned(),
                Way::Steps(count) => format!(" by {count} steps"),
                Way::Chunks => " by chunks".to_owned(),
            };
            let bars = [(update.bytes, NOW, way, 0), (update.whole_bytes, WHOLE, String::new(), 14)];
            for (bytes, color, how, down) in bars {
                // Bounded by the width of the drawing.
                let end = LEFT as i32 + (across * bytes as f64 / most as f64).round().max(1.0) as i32;
                let (from, to) = ((LEFT as i32, top + down), (end, top + down + 13));
                area.draw(&Rectangle::new([from, to], color.filled()))?;
                let label = format!("{}{how}", terminal::bytes(bytes));
                area.draw(&Text::new(label, (end + 6, top + down + 6), text(12, HPos::Left, VPos::Center)))?;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

/// A version that fits beside its bars.
fn short(version: &str) -> String {
    const MOST: usize = 12;
    if version.chars().count() <= MOST {
        return version.to_owned();
    }
    version.chars().take(MOST - 1).chain(['…']).collect()
}
