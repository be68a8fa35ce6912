//! What came out: a table for people, a file for programs.

use std::path::Path;

use serde::Serialize;

use crate::measure::{BoxError, Contender, Sample, Spread};

/// One line of `results.json`. `ratio` is above 1 where ours is better.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) work: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    /// Lowest and highest of ours.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<String>,
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) met: Option<bool>,
}

/// How a rate changes with what there is more of.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) work: String,
    pub(crate) points: Vec<(usize, f64)>,
}

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
            of.map(|c| (c.name, c.rate())).max_by(|a, b| a.1.median.total_cmp(&b.1.median))
        };
        let (Some((_, rate)), Some((peer_name, peer))) = (best(true), best(false)) else { return };
        let (ours, peer) = (rate.median, peer.median);
        let ratio = ours / peer;
        self.records.push(Record {
            work: work.to_owned(),
            unit: "events/s",
            ours,
            spread: Some((rate.min, rate.max)),
            peer: Some(peer),
            peer_name: Some(peer_name.to_owned()),
            ratio: Some(ratio),
            target,
            met: target.map(|target| ratio >= target),
        });
    }

    /// Compares pairs of contenders, each named by how its name begins (the best of them), with the ratio that is aimed at.
    pub(crate) fn against(&mut self, work: &str, contenders: &[Contender<'_>], pairs: &[(&str, &str, Option<f64>)]) {
        println!("\n{work}");
        for contender in contenders {
            print_rates(contender);
        }
        let best = |start: &str| {
            let of = contenders.iter().filter(|c| c.name.starts_with(start) && !c.samples.is_empty());
            of.map(|c| (c.name, c.rate().median)).max_by(|a, b| a.1.total_cmp(&b.1))
        };
        for (ours, peer, target) in pairs {
            let (Some((our_name, ours)), Some((peer_name, peer))) = (best(ours), best(peer)) else { continue };
            let ratio = ours / peer;
            self.records.push(Record {
                work: format!("{work}: {our_name}"),
                unit: "events/s",
                ours,
                spread: None,
                peer: Some(peer),
                peer_name: Some(peer_name.to_owned()),
                ratio: Some(ratio),
                target: *target,
                met: target.map(|target| ratio >= target),
            });
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
            self.records.push(Record {
                work: format!("{work}: {name}"),
                unit: "MiB RSS",
                ours: *rss,
                spread: None,
                peer: of,
                peer_name: Some(peer.to_owned()),
                ratio: of.map(|of| of / rss),
                target: Some(1.0 / share),
                met: of.map(|of| of * share >= *rss),
            });
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
        self.records.push(Record {
            work: work.to_owned(),
            unit,
            ours: ours.median,
            spread: Some((ours.min, ours.max)),
            peer: peer.map(|(_, spread)| spread.median),
            peer_name: peer.map(|(name, _)| name.to_owned()),
            ratio,
            target: target.filter(|_| ratio.is_some()),
            met: ratio.zip(target).map(|(ratio, target)| ratio >= target),
        });
    }

    /// A figure that must not exceed a limit.
    pub(crate) fn limit(&mut self, work: &str, unit: &'static str, ours: f64, limit: f64) {
        println!("\n{work}\n  tidings {ours:.1} {unit}");
        self.records.push(Record {
            work: work.to_owned(),
            unit,
            ours,
            spread: None,
            peer: None,
            peer_name: None,
            ratio: None,
            target: Some(limit),
            met: Some(ours <= limit),
        });
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

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), BoxError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(&self.records)?)?;
        if let Some(folder) = path.parent() {
            crate::report::write(folder, &self.records, &self.curves)?;
        }
        println!("written to {}, and as results.md, ratios.svg and growth.svg beside it", path.display());
        Ok(())
    }
}

fn print_rates(contender: &Contender<'_>) {
    let rate = contender.rate();
    let cpu = |which: fn(&Sample) -> Option<f64>| {
        let spread = Spread::of(contender.samples.iter().filter_map(which));
        if spread.max > 0.0 { format!("{:.1} µs", spread.median) } else { "–".to_owned() }
    };
    println!(
        "  {:<38} {:>9.0} /s ({:.0}–{:.0})  cpu/event: client {}, broker {}",
        contender.name,
        rate.median,
        rate.min,
        rate.max,
        cpu(|s| s.client_cpu),
        cpu(|s| s.broker_cpu),
    );
}

fn print_spread(name: &str, unit: &str, spread: Spread) {
    println!("  {name:<38} {:>9.1} {unit} ({:.1}–{:.1})", spread.median, spread.min, spread.max);
}
