//! The results for people: a Markdown table, and plots as SVG.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::measure::BoxError;
use crate::results::{Curve, Record};
use crate::targets;
use crate::versions::Versions;

const WIDTH: f64 = 860.0;
const ROW: f64 = 22.0;
/// Where the bars begin.
const LEFT: f64 = 400.0;
/// Pixels of a ratio of 1.
const ONE: f64 = 180.0;
/// Longest bar, as a ratio.
const MOST: f64 = 2.2;
const STYLE: &str = "<style>text{font:12px sans-serif;fill:#222}.n{text-anchor:end}.g{stroke:#bbb}</style>";

/// Writes `results.md`, `targets.md`, `ratios.svg` and `growth.svg` into a folder.
pub(crate) fn write(folder: &Path, records: &[Record], curves: &[Curve], versions: &Versions) -> Result<(), BoxError> {
    std::fs::write(folder.join("results.md"), markdown(records, curves, versions))?;
    std::fs::write(folder.join("targets.md"), targets::table(records))?;
    std::fs::write(folder.join("ratios.svg"), ratios(records))?;
    if !curves.is_empty() {
        std::fs::write(folder.join("growth.svg"), growth(curves))?;
    }
    Ok(())
}

fn markdown(records: &[Record], curves: &[Curve], versions: &Versions) -> String {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // Where the results go is nothing to measure again.
    if let Some(at) = words.iter().position(|word| word == "--output") {
        words.drain(at..(at + 2).min(words.len()));
    }
    let command: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let mut text = format!(
        "Measured on {}, {}, with {}.\n\n`cargo run --release -p tidings-bench -- {}`\n\n\
         | work | ours | best peer | peer | ratio | target | |\n|---|---:|---:|---|---:|---:|---|\n",
        date(),
        processor(),
        versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", "),
        command.join(" "),
    );
    for r in records {
        let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
        let ratio = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
        let met = r.met.map_or("", |met| if met { "met" } else { "**not met**" });
        let spread = r.spread.map_or_else(String::new, |(min, max)| format!(" ({min:.0}–{max:.0})"));
        let (ours, peer, name) = (r.ours, figure(r.peer), r.peer_name.as_deref().unwrap_or("–"));
        let _infallible = writeln!(
            text,
            "| {} | {ours:.1}{spread} {} | {peer} | {name} | {} | {} | {met} |",
            r.work,
            r.unit,
            ratio(r.ratio),
            ratio(r.target),
        );
    }
    for curve in curves {
        let points = curve.points.iter().map(|(x, rate)| format!("{x}: {rate:.0}"));
        let _infallible = writeln!(text, "\n{} (events/s): {}", curve.work, points.collect::<Vec<_>>().join(", "));
    }
    text
}

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH)
}

/// Today in UTC.
pub(crate) fn date() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // Howard Hinnant's civil_from_days, for days after 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + u64::from(month <= 2))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A bar for each ratio: where it is longer than the line, Tidings is better.
#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn ratios(records: &[Record]) -> String {
    let rows: Vec<_> = records.iter().filter_map(|r| r.ratio.map(|ratio| (r, ratio))).collect();
    let height = ROW * (rows.len() as f64 + 2.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\">{STYLE}\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"15\">ratio to the best peer; the line is 1, longer is better</text>\n"
    );
    for (row, (record, ratio)) in rows.iter().enumerate() {
        let y = ROW * (row as f64 + 1.2);
        let colour = if record.met == Some(false) { "#c0504d" } else { "#4f81bd" };
        let _infallible = writeln!(
            svg,
            "<text class=\"n\" x=\"{:.0}\" y=\"{:.0}\">{}</text><rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"{:.0}\" \
             fill=\"{colour}\"/><text x=\"{:.0}\" y=\"{:.0}\">{ratio:.2}</text>",
            LEFT - 8.0,
            y + 13.0,
            escaped(&record.work),
            ratio.min(MOST) * ONE,
            ROW - 5.0,
            LEFT + ratio.min(MOST) * ONE + 4.0,
            y + 13.0,
        );
    }
    let x = LEFT + ONE;
    let _infallible = writeln!(svg, "<line class=\"g\" x1=\"{x}\" y1=\"20\" x2=\"{x}\" y2=\"{height:.0}\"/>\n</svg>");
    svg
}

/// A plot for each curve, both axes from the lowest to the highest, the lower one in powers.
#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn growth(curves: &[Curve]) -> String {
    const HEIGHT: f64 = 150.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{:.0}\">{STYLE}\n<rect width=\"100%\" \
         height=\"100%\" fill=\"#fff\"/>\n",
        HEIGHT * curves.len() as f64
    );
    for (number, curve) in curves.iter().enumerate() {
        let (top, bottom) = (HEIGHT * number as f64 + 30.0, HEIGHT * (number as f64 + 1.0) - 30.0);
        let most = curve.points.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
        let widest = curve.points.iter().map(|(x, _)| (*x as f64).log10()).fold(0.1, f64::max);
        let place = |(size, rate): &(usize, f64)| {
            ((*size as f64).log10() / widest * (WIDTH - 160.0) + 60.0, bottom - rate / most * (bottom - top))
        };
        let points: Vec<_> = curve.points.iter().map(place).collect();
        let line: Vec<_> = points.iter().map(|(x, y)| format!("{x:.0},{y:.0}")).collect();
        let _infallible = writeln!(
            svg,
            "<text x=\"20\" y=\"{:.0}\">{} (events/s, from 0)</text>\n<line class=\"g\" x1=\"60\" y1=\"{bottom:.0}\" x2=\"{:.0}\" \
             y2=\"{bottom:.0}\"/>\n<polyline points=\"{}\" fill=\"none\" stroke=\"#4f81bd\" stroke-width=\"2\"/>",
            top - 12.0,
            escaped(&curve.work),
            WIDTH - 60.0,
            line.join(" "),
        );
        for ((x, y), (size, rate)) in points.iter().zip(&curve.points) {
            let _infallible = writeln!(
                svg,
                "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"3\" fill=\"#4f81bd\"/><text x=\"{:.0}\" y=\"{:.0}\">{rate:.0}</text>\
                 <text x=\"{:.0}\" y=\"{:.0}\">{size}</text>",
                x + 5.0,
                y - 5.0,
                x - 4.0,
                bottom + 15.0,
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
