//! What was measured: medians with their units, printed as they come and written as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

/// One benchmark's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Measurement {
    /// The median of the runs.
    value: f64,
    unit: &'static str,
    /// How many runs there were.
    runs: usize,
    /// The lowest and the highest of them.
    minimum: f64,
    maximum: f64,
}

/// Every benchmark's result, by name.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Results {
    measurements: BTreeMap<String, Measurement>,
    /// Suites that could not run here.
    #[serde(skip)]
    skipped: usize,
}

impl Results {
    /// Records the values of all runs of a benchmark and prints their median, which it returns.
    ///
    /// # Panics
    /// When there is no value.
    pub(crate) fn record(&mut self, name: &str, unit: &'static str, values: &[f64]) -> f64 {
        let measurement = Measurement {
            value: median(values),
            unit,
            runs: values.len(),
            minimum: values.iter().copied().fold(f64::INFINITY, f64::min),
            maximum: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let Measurement { value, runs, minimum, maximum, .. } = measurement;
        let digits = if value.abs() < 10.0 { 3 } else { 1 };
        println!(
            "{name:<44} {value:>14.digits$} {unit:<6} \
             ({runs} runs, {minimum:.digits$} to {maximum:.digits$})"
        );
        self.measurements.insert(name.to_owned(), measurement);
        value
    }

    /// Prints what is to be compared with, and is not measured here.
    pub(crate) fn beside(&self, name: &str, text: &str) {
        println!("  {name:<42} {text:>14}");
    }

    /// Says why a suite is not run here.
    pub(crate) fn skip(&mut self, suite: &str, reason: &str) {
        println!("{suite}: skipped, {reason}");
        self.skipped += 1;
    }

    /// Whether nothing was asked for that there is: neither measured nor skipped.
    pub(crate) fn is_empty(&self) -> bool {
        self.measurements.is_empty() && self.skipped == 0
    }

    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and texts are JSON");
        text.push('\n');
        text
    }
}

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1].midpoint(sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_runs_counts() {
        assert_eq!(median(&[9.0]), 9.0);
        assert_eq!(median(&[3.0, 100.0, 1.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), 3.0);
    }

    #[test]
    fn what_was_skipped_was_asked_for() {
        let mut results = Results::default();
        assert!(results.is_empty());
        results.skip("trace", "there are none");
        assert!(!results.is_empty());
        assert_eq!(results.to_json(), "{}\n", "and has no row");
    }

    #[test]
    fn json_has_value_unit_and_runs_by_name() {
        let mut results = Results::default();
        results.record("engine.read_hit", "ns", &[300.0, 310.0, 290.0]);
        let json: serde_json::Value = serde_json::from_str(&results.to_json()).unwrap();
        assert_eq!(json["engine.read_hit"]["value"], 300.0);
        assert_eq!(json["engine.read_hit"]["unit"], "ns");
        assert_eq!(json["engine.read_hit"]["runs"], 3);
    }
}
