//! What came out: a table for people, a file for programs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::measure::{BoxError, Contender, Spread};
use crate::versions::Versions;
use crate::{report, targets};

/// One line of `results.json`. `ratio` is above 1 where ours is better.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) work: String,
    pub(crate) unit: String,
    pub(crate) ours: f64,
    /// Lowest and highest of ours.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<String>,
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) met: Option<bool>,
    /// CPU microseconds for each event.
    pub(crate) cpu: Option<Cpu>,
    /// The day on which it was measured.
    pub(crate) date: String,
    /// What it was measured with.
    pub(crate) versions: Versions,
}

/// CPU microseconds for each event, of the process with the client and of the broker.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) ours: Option<f64>,
    pub(crate) ours_broker: Option<f64>,
    pub(crate) peer: Option<f64>,
    pub(crate) peer_broker: Option<f64>,
}

impl Cpu {
    fn of(ours: &Contender<'_>, peer: &Contender<'_>) -> Self {
        let (ours, peer) = (ours.cpu(), peer.cpu());
        Self { ours: ours.0, ours_broker: ours.1, peer: peer.0, peer_broker: peer.1 }
    }
}

impl Record {
    /// A figure, beside a peer's if there is one.
    pub(crate) fn of(work: &str, unit: &str, ours: f64, peer: Option<(&str, f64)>, ratio: Option<f64>) -> Self {
        let (peer_name, peer) = peer.map(|(name, figure)| (name.to_owned(), figure)).unzip();
        Self { work: work.to_owned(), unit: unit.to_owned(), ours, peer, peer_name, ratio, ..Self::default() }
    }

    /// The ratio that is aimed at.
    fn aimed(self, target: Option<f64>) -> Self {
        let met = self.ratio.zip(target).map(|(ratio, target)| ratio >= target);
        Self { target: target.filter(|_| self.ratio.is_some()), met, ..self }
    }

    fn spread(self, spread: Spread) -> Self {
        Self { spread: Some((spread.min, spread.max)), ..self }
    }
}

/// How a rate changes with what there is more of.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) work: String,
    pub(crate) points: Vec<(usize, f64)>,
}

/// Unit of what is compared.
const RATE: &str = "events/s";

/// Everything measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    records: Vec<Record>,
    curves: Vec<Curve>,
}

impl Results {
    /// Compares the contender that is ours with the best of the others, by rate. The target, if there is one, is a ratio.
    pub(crate) fn compare(&mut self, work: &str, contenders: &[Contender<'_>], target: Option<f64>) {
        println!("\n{work}");
        for contender in contenders {
            print_rates(contender);
        }
        let best = |ours: bool| {
            let of = contenders.iter().filter(|c| c.ours == ours);
            of.max_by(|a, b| a.rate().median.total_cmp(&b.rate().median))
        };
        let (Some(ours), Some(peer)) = (best(true), best(false)) else { return };
        let (rate, theirs) = (ours.rate(), peer.rate().median);
        let record = Record::of(work, RATE, rate.median, Some((peer.name, theirs)), Some(rate.median / theirs));
        self.records.push(Record { cpu: Some(Cpu::of(ours, peer)), ..record.spread(rate).aimed(target) });
    }

    /// Compares pairs of contenders, each named by how its name begins (the best of them), with the ratio that is aimed at.
    pub(crate) fn against(&mut self, work: &str, contenders: &[Contender<'_>], pairs: &[(&str, &str, Option<f64>)]) {
        println!("\n{work}");
        for contender in contenders {
            print_rates(contender);
        }
        let best = |start: &str| {
            let of = contenders.iter().filter(|c| c.name.starts_with(start) && !c.samples.is_empty());
            of.max_by(|a, b| a.rate().median.total_cmp(&b.rate().median))
        };
        for (ours, peer, target) in pairs {
            let (Some(ours), Some(peer)) = (best(ours), best(peer)) else { continue };
            let (rate, theirs) = (ours.rate(), peer.rate().median);
            let work = format!("{work}: {}", ours.name);
            let record = Record::of(&work, RATE, rate.median, Some((peer.name, theirs)), Some(rate.median / theirs));
            self.records.push(Record { cpu: Some(Cpu::of(ours, peer)), ..record.spread(rate).aimed(*target) });
        }
    }

    /// Memory of several in MiB; the aim is at most this share of the peer's.
    pub(crate) fn memory(&mut self, work: &str, found: &[(&str, f64)], peer: &str, share: f64) {
        println!("\n{work}");
        for (name, rss) in found {
            println!("  {name:<38} {rss:>9.1} MiB RSS");
        }
        let of = found.iter().find(|(name, _)| *name == peer).map(|(_, rss)| *rss);
        for (name, rss) in found.iter().filter(|(name, _)| name.starts_with("tidings")) {
            let ratio = of.map(|of| of / rss);
            let peer = of.map(|of| (peer, of));
            let record = Record::of(&format!("{work}: {name}"), "MiB RSS", *rss, peer, ratio);
            self.records.push(record.aimed(Some(1.0 / share)));
        }
    }

    /// A figure where less is better, beside a peer's if there is one. The target, if there is one, is a ratio: 1 means no
    /// more than the peer, 2 half of it.
    pub(crate) fn less(
        &mut self,
        work: &str,
        unit: &'static str,
        ours: Spread,
        peer: Option<(&str, Spread)>,
        target: Option<f64>,
    ) {
        println!("\n{work}");
        print_spread("tidings", unit, ours);
        if let Some((name, peer)) = peer {
            print_spread(name, unit, peer);
        }
        let ratio = peer.map(|(_, spread)| spread.median / ours.median);
        let peer = peer.map(|(name, spread)| (name, spread.median));
        self.records.push(Record::of(work, unit, ours.median, peer, ratio).spread(ours).aimed(target));
    }

    /// A figure that must not exceed a limit.
    pub(crate) fn limit(&mut self, work: &str, unit: &'static str, ours: f64, limit: f64) {
        println!("\n{work}\n  tidings {ours:.1} {unit}");
        let record = Record::of(work, unit, ours, None, None);
        self.records.push(Record { target: Some(limit), met: Some(ours <= limit), ..record });
    }

    /// How a rate changes with what there is more of.
    pub(crate) fn curve(&mut self, work: &str, what: &str, points: &[(usize, Spread)]) {
        println!("\n{work}");
        for (size, rate) in points {
            println!("  {size:>9} {what:<28} {:>9.0} /s ({:.0}–{:.0})", rate.median, rate.min, rate.max);
        }
        let points = points.iter().map(|(size, rate)| (*size, rate.median)).collect();
        self.curves.push(Curve { work: work.to_owned(), points });
    }

    /// Prints one line per work, unmet targets flagged.
    pub(crate) fn print(&self) {
        println!("\n{:<54} {:>12} {:>12}  {:<34} {:>6} {:>7}", "work", "ours", "best peer", "peer", "ratio", "target");
        for r in &self.records {
            let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
            let ratio = r.ratio.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
            let target = r.target.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
            let flag = if r.met == Some(false) { "  NOT MET" } else { "" };
            println!(
                "{:<54} {:>12} {:>12}  {:<34} {ratio:>6} {target:>7}{flag}",
                format!("{} [{}]", r.work, r.unit),
                figure(Some(r.ours)),
                figure(r.peer),
                r.peer_name.as_deref().unwrap_or("–"),
            );
        }
        let missed = self.records.iter().filter(|r| r.met == Some(false)).count();
        let aimed = self.records.iter().filter(|r| r.met.is_some()).count();
        println!("{} works measured, {} of {aimed} targets met", self.records.len(), aimed - missed);
    }

    /// Prints what is aimed at: of this run and of the files of earlier ones, where the last measurement counts.
    pub(crate) fn print_targets(&self) {
        println!("\n{}", targets::table(&self.records));
    }

    /// Adds what earlier runs have written, except what was measured again.
    pub(crate) fn merge(&mut self, files: &[PathBuf]) -> Result<(), BoxError> {
        for file in files.iter().rev() {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let earlier: Vec<Record> = serde_json::from_str(&text)?;
            let known = |one: &Record| self.records.iter().any(|r| r.work == one.work && r.peer_name == one.peer_name);
            let new: Vec<Record> = earlier.into_iter().filter(|one| !known(one)).collect();
            self.records.splice(0..0, new);
        }
        Ok(())
    }

    /// Writes the file, each record a line with the date and the versions.
    pub(crate) fn write(&mut self, path: &Path, versions: &Versions) -> Result<(), BoxError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        for record in self.records.iter_mut().filter(|record| record.date.is_empty()) {
            (record.date, record.versions) = (report::date(), versions.clone());
        }
        let lines = self.records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n")))?;
        if let Some(folder) = path.parent() {
            report::write(folder, &self.records, &self.curves, versions)?;
        }
        println!("written to {}, and as results.md, targets.md, ratios.svg and growth.svg beside it", path.display());
        Ok(())
    }
}

fn print_rates(contender: &Contender<'_>) {
    let rate = contender.rate();
    let (client, broker) = contender.cpu();
    let cpu = |spent: Option<f64>| spent.map_or_else(|| "–".to_owned(), |spent| format!("{spent:.1} µs"));
    println!(
        "  {:<38} {:>9.0} /s ({:.0}–{:.0})  cpu/event: client {}, broker {}",
        contender.name,
        rate.median,
        rate.min,
        rate.max,
        cpu(client),
        cpu(broker),
    );
}

fn print_spread(name: &str, unit: &str, spread: Spread) {
    println!("  {name:<38} {:>9.1} {unit} ({:.1}–{:.1})", spread.median, spread.min, spread.max);
}
