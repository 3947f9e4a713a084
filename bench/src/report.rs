//! The table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::run::{MEMORY_BEHIND, Run, Sample};
use crate::speaker::Kind;

#[derive(Serialize)]
struct Measured {
    speaker: &'static str,
    round: usize,
    #[serde(flatten)]
    sample: Sample,
}

pub(crate) struct Report {
    speakers: Vec<(Kind, String)>,
    rows: Vec<&'static str>,
    samples: BTreeMap<(usize, Kind), Vec<(usize, Sample)>>,
    failures: Vec<String>,
    start: Instant,
    /// Stolen before it began.
    stolen: f64,
}

/// Ratios to BIRD that are to be reached.
struct Goal {
    time: Option<f64>,
    memory: Option<f64>,
}

fn goal(row: &str) -> Goal {
    let (time, memory) = match row {
        "internet 1M" | "tenant 1M" => (Some(0.33), Some(1.0)),
        "fan-out 100k to 200 clients" => (Some(0.2), None),
        "internet 1M, generated" => (None, None),
        row if row.starts_with("memory") || row.contains("idle") || row == MEMORY_BEHIND => {
            (None, None)
        }
        _ => (Some(0.5), None),
    };
    Goal { time, memory }
}

/// A ratio, and the goal where it falls short of it.
fn verdict(ratio: Option<f64>, goal: Option<f64>) -> String {
    match (ratio, goal) {
        (None, _) => "-".into(),
        (Some(ratio), Some(goal)) if ratio > goal => {
            format!("{ratio:.2}, FALLS SHORT of {goal:.2}")
        }
        (Some(ratio), Some(goal)) => format!("{ratio:.2} (goal {goal:.2})"),
        (Some(ratio), None) => format!("{ratio:.2}"),
    }
}

fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

/// Seconds of processor time that the machine's other guests took.
pub(crate) fn stolen() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let field = line.split_whitespace().nth(8);
    field
        .and_then(|field| field.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 100.0
}

impl Report {
    pub(crate) fn new(speakers: &[(Kind, String)]) -> Self {
        Self {
            speakers: speakers.to_vec(),
            rows: Vec::new(),
            samples: BTreeMap::new(),
            failures: Vec::new(),
            start: Instant::now(),
            stolen: stolen(),
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, round: usize, samples: Vec<Sample>) {
        for sample in samples {
            eprintln!(
                "{:9} {:28} {:>9}  peak {:>5} MB  cpu {:.2} s",
                kind.name(),
                sample.row,
                value(sample.row, sample.value),
                sample.peak >> 20,
                sample.cpu
            );
            let row = match self.rows.iter().position(|row| *row == sample.row) {
                Some(row) => row,
                None => {
                    self.rows.push(sample.row);
                    self.rows.len() - 1
                }
            };
            self.samples
                .entry((row, kind))
                .or_default()
                .push((round, sample));
        }
    }

    pub(crate) fn failed(&mut self, kind: Kind, run: Run, error: &anyhow::Error) {
        let text = format!("{}, {run:?}: {error:#}", kind.name());
        eprintln!("FAILED: {text}");
        self.failures.push(text);
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    pub(crate) fn round_over(&self, run: Run, round: usize, before: f64) {
        eprintln!(
            "{run:?}, round {}: {:.1} s stolen",
            round + 1,
            stolen() - before
        );
    }

    /// Prints a table in Markdown: median (least to most), peak memory; and Weft's ratio to BIRD, round by round.
    pub(crate) fn print(&self) {
        let mut out = String::from("\n| load |");
        for (kind, version) in &self.speakers {
            let _ = write!(out, " {} {version} |", kind.name());
        }
        out.push_str(" Weft : BIRD, time | memory |\n|---|");
        out.push_str(&"---|".repeat(self.speakers.len() + 2));
        out.push('\n');
        for (row, name) in self.rows.iter().enumerate() {
            let _ = write!(out, "| {name} |");
            for (kind, _) in &self.speakers {
                let Some(samples) = self.samples.get(&(row, *kind)) else {
                    out.push_str(" |");
                    continue;
                };
                let mut values: Vec<f64> = samples.iter().map(|(_, one)| one.value).collect();
                values.sort_by(f64::total_cmp);
                let peak = samples.iter().map(|(_, one)| one.peak).max().unwrap_or(0);
                let unfinished = samples.iter().any(|(_, one)| one.unfinished);
                let bound = if unfinished { "more than " } else { "" };
                let _ = write!(out, " {bound}{}", value(name, values[values.len() / 2]));
                if values.len() > 1 {
                    let (least, most) = (values[0], values[values.len() - 1]);
                    let _ = write!(out, " ({} to {})", value(name, least), value(name, most));
                }
                let _ = write!(out, ", {} MB |", peak.div_ceil(1 << 20));
            }
            let goal = goal(name);
            let _ = writeln!(
                out,
                " {} | {} |",
                verdict(
                    self.median_ratio(row, Kind::Bird, |one| one.value),
                    goal.time
                ),
                verdict(
                    self.median_ratio(row, Kind::Bird, |one| one.peak as f64),
                    goal.memory
                )
            );
        }
        if let Some(row) = self.rows.iter().position(|row| row.starts_with("fan-out")) {
            let ratio = self.median_ratio(row, Kind::Frr, |one| one.value);
            let _ = writeln!(
                out,
                "Fan-out, Weft : FRR, time: {}",
                verdict(ratio, Some(0.2))
            );
        }
        let _ = writeln!(
            out,
            "{:.1} s of processor time stolen by other guests of the machine, of {:.0} s.",
            stolen() - self.stolen,
            self.start.elapsed().as_secs_f64() * processors()
        );
        self.compare_tables(&mut out);
        for failure in &self.failures {
            let _ = writeln!(out, "FAILED: {failure}");
        }
        #[allow(clippy::print_stdout, reason = "what the program is for")]
        {
            println!("{out}");
        }
    }

    /// Says whether the real table and the generated one give like ratios.
    fn compare_tables(&self, out: &mut String) {
        let ratio = |name| {
            let row = self.rows.iter().position(|row| *row == name)?;
            self.median_ratio(row, Kind::Bird, |sample| sample.value)
        };
        if let (Some(real), Some(generated)) =
            (ratio("internet 1M"), ratio("internet 1M, generated"))
        {
            let apart = (real / generated).max(generated / real) - 1.0;
            let verdict = if apart <= 0.2 { "within" } else { "NOT within" };
            let _ = writeln!(
                out,
                "Real and generated table: Weft : BIRD is {real:.2} and {generated:.2}, {verdict} 20 % of each other"
            );
        }
    }

    /// Median of the rounds' ratios of Weft to another.
    fn median_ratio(&self, row: usize, other: Kind, each: impl Fn(&Sample) -> f64) -> Option<f64> {
        let rounds = |kind| self.samples.get(&(row, kind));
        let (weft, other) = (rounds(Kind::Weft)?, rounds(other)?);
        let mut ratios: Vec<f64> = weft
            .iter()
            .filter_map(|(round, one)| {
                let (_, other) = other.iter().find(|(other, _)| other == round)?;
                Some(each(one) / each(other))
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied()
    }

    pub(crate) fn json(&self) -> Result<String> {
        let all: Vec<Measured> = self
            .samples
            .iter()
            .flat_map(|((_, kind), samples)| {
                samples.iter().map(|(round, sample)| Measured {
                    speaker: kind.name(),
                    round: *round,
                    sample: sample.clone(),
                })
            })
            .collect();
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

fn value(row: &str, value: f64) -> String {
    if row == MEMORY_BEHIND {
        format!("{value:.2} x idle")
    } else if row.starts_with("memory") {
        format!("{value:.0} octets")
    } else if row.contains("idle") {
        format!("{:.1} % CPU", value * 100.0)
    } else {
        format!("{value:.3} s")
    }
}
