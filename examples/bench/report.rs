//! Figures of many rounds as two tables: what was measured, and what was claimed about it.
use std::fmt;

use crate::load::Sample;

/// The median of some rounds, and how far they lay apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    /// Over at least one round.
    pub(crate) fn of(rounds: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = rounds.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }
}

/// What a ratio of two things must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// This or more.
    AtLeast(f64),
    /// Nothing is promised.
    None,
}

impl Target {
    fn verdict(self, measured: f64) -> &'static str {
        match self {
            Self::AtLeast(least) if measured >= least => "pass",
            Self::AtLeast(_) => "falls short",
            Self::None => "",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => f.pad(&format!(">= {least:.2}")),
            Self::None => f.pad("-"),
        }
    }
}

/// Heads the table of [`print_rate`].
pub(crate) fn print_rates_head() {
    println!(
        "\n{:>8}  {:<44} {:>11} {:>17} {:>10} {:>10}",
        "hosts", "", "per second", "(least-most)", "server us", "clients us"
    );
}

/// One line of what was measured.
pub(crate) fn print_rate(hosts: u64, what: &str, rounds: &[Sample]) {
    let rate = Figure::of(rounds.iter().map(|round| round.per_second));
    let server = Figure::of(rounds.iter().map(|round| round.server_us)).median;
    let clients = Figure::of(rounds.iter().filter_map(|round| round.client_us)).median;
    let clients = if clients.is_nan() { "-".to_owned() } else { format!("{clients:.0}") };
    let range = format!("({:.0}-{:.0})", rate.least, rate.most);
    println!("{hosts:>8}  {what:<44} {:>11.0} {range:>17} {server:>10.0} {clients:>10}", rate.median);
}

/// Heads the table of [`print_ratio`].
pub(crate) fn print_ratios_head() {
    println!("\n{:<70} {:>6} {:>13} {:>8}", "", "ratio", "(least-most)", "target");
}

/// One line of what follows: each round of one thing over the same round of another. Whether it is as it should be.
pub(crate) fn print_ratio(what: &str, rounds: &[Sample], over: &[Sample], target: Target) -> bool {
    let ratio = Figure::of(rounds.iter().zip(over).map(|(one, other)| one.per_second / other.per_second));
    let range = format!("({:.2}-{:.2})", ratio.least, ratio.most);
    let verdict = target.verdict(ratio.median);
    println!("{what:<70} {:>6.2} {range:>13} {target:>8}  {verdict}", ratio.median);
    !matches!(verdict, "falls short")
}
