//! What the demo shows at its end.

use std::time::Duration;

use serde_json::Value;

use super::phase::Outcome;
use crate::output::{json, table};

/// Everything that the demo found.
pub(super) struct Report {
    pub(super) settings: Settings,
    /// The first is what the others are compared with.
    pub(super) rows: Vec<Row>,
    /// Reads of the final check of the whole origin.
    pub(super) sweep: Outcome,
}

/// What the numbers were measured with.
pub(super) struct Settings {
    pub(super) latency: Duration,
    pub(super) volume_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) queue_depth: u32,
    pub(super) write_percent: u64,
    pub(super) seed: u64,
}

/// One phase.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    /// Reads served from the cache alone, of all; absent without a cache.
    pub(super) hit_ratio: Option<f64>,
    /// The same of the phase's first second.
    pub(super) hit_ratio_early: Option<f64>,
}

impl Row {
    fn requests_per_second(&self) -> f64 {
        let requests = self.outcome.reads + self.outcome.writes;
        requests as f64 / self.outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn mebibytes_per_second(&self) -> f64 {
        let mebibytes = self.outcome.bytes as f64 / f64::from(1 << 20);
        mebibytes / self.outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn percentile(&self, quantile: f64) -> u64 {
        self.outcome.latency.value_at_quantile(quantile)
    }
}

impl Report {
    /// Reads whose bytes were compared.
    pub(super) fn verified_reads(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.reads).sum()
    }

    /// Bytes that were not what they should be.
    pub(super) fn wrong_bytes(&self) -> u64 {
        self.outcomes().map(|outcome| outcome.wrong_bytes).sum()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.rows.iter().map(|row| &row.outcome).chain([&self.sweep])
    }

    /// How many times faster than the first row; only rows that ask for the same can be compared.
    fn speed_up(&self, row: &Row) -> Option<f64> {
        let base = self.rows.first().filter(|_| row.outcome.writes == 0)?;
        Some(row.requests_per_second() / base.requests_per_second().max(f64::MIN_POSITIVE))
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let header = ["", "IOPS", "MiB/s", "p50", "p99", "1st second", "hit ratio", "speed-up"];
        let mut shown = table::new(&header, 1);
        let none = || "–".to_owned();
        for row in &self.rows {
            shown.add_row([
                row.name.to_owned(),
                table::grouped(row.requests_per_second().round() as u64),
                format!("{:.1}", row.mebibytes_per_second()),
                table::duration(row.percentile(0.50)),
                table::duration(row.percentile(0.99)),
                row.hit_ratio_early.map_or_else(none, table::percent),
                row.hit_ratio.map_or_else(none, table::percent),
                self.speed_up(row).map_or_else(none, |factor| format!("{factor:.1}×")),
            ]);
        }
        let settings = &self.settings;
        format!(
            "A volume of {} behind NVMe/TCP, {} away, with a cache of {} in front.\n\
             4 KiB at random, popular blocks more often; {} requests in flight.\n\
             {shown}\n\
             The cached volume passed each write through: the origin was read whole afterwards.\n\
             Then it was stopped and started over the same file, and killed and started again:\n\
             see the first second. Killed is its thread, which ended where it stood, with nothing\n\
             flushed, recorded or said. What was just written would be cold: here nothing was.\n\
             verified {} reads, {} wrong bytes",
            table::bytes(settings.volume_bytes),
            table::duration(u64::try_from(settings.latency.as_nanos()).unwrap_or(u64::MAX)),
            table::bytes(settings.cache_bytes),
            settings.queue_depth,
            table::grouped(self.verified_reads()),
            table::grouped(self.wrong_bytes()),
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let settings = &self.settings;
        let micro = |nanoseconds: u64| json::rounded(nanoseconds as f64 / 1e3, 1);
        let rounded = |value: Option<f64>, digits| {
            value.map_or(Value::Null, |value| json::rounded(value, digits))
        };
        let phases = self.rows.iter().map(|row| {
            json::object([
                ("name", Value::from(row.name)),
                ("reads", row.outcome.reads.into()),
                ("writes", row.outcome.writes.into()),
                ("seconds", json::rounded(row.outcome.elapsed.as_secs_f64(), 3)),
                ("iops", json::rounded(row.requests_per_second(), 0)),
                ("mib_per_second", json::rounded(row.mebibytes_per_second(), 1)),
                ("p50_us", micro(row.percentile(0.50))),
                ("p99_us", micro(row.percentile(0.99))),
                ("first_second_hit_ratio", rounded(row.hit_ratio_early, 4)),
                ("hit_ratio", rounded(row.hit_ratio, 4)),
                ("speed_up", rounded(self.speed_up(row), 2)),
                ("wrong_bytes", row.outcome.wrong_bytes.into()),
            ])
        });
        json::object([
            (
                "settings",
                json::object([
                    ("latency_us", micro(settings.latency.as_nanos() as u64)),
                    ("volume_bytes", settings.volume_bytes.into()),
                    ("cache_bytes", settings.cache_bytes.into()),
                    ("queue_depth", settings.queue_depth.into()),
                    ("mixed_write_percent", settings.write_percent.into()),
                    ("seed", settings.seed.into()),
                ]),
            ),
            ("phases", phases.collect()),
            ("verified_reads", self.verified_reads().into()),
            ("wrong_bytes", self.wrong_bytes().into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;

    fn outcome(reads: u64, wrong_bytes: u64) -> Outcome {
        let mut latency = Histogram::new(3).expect("in range");
        latency.record_n(100_000, reads).expect("in range");
        let elapsed = Duration::from_secs(2);
        Outcome { reads, writes: 0, bytes: reads * 4096, wrong_bytes, elapsed, latency }
    }

    fn report(wrong_bytes: u64) -> Report {
        let row = |name, reads, hit_ratio: Option<f64>| {
            let hit_ratio_early = hit_ratio.map(|ratio| ratio / 2.0);
            Row { name, outcome: outcome(reads, 0), hit_ratio, hit_ratio_early }
        };
        Report {
            settings: Settings {
                latency: Duration::from_micros(500),
                volume_bytes: 256 << 20,
                cache_bytes: 64 << 20,
                queue_depth: 16,
                write_percent: 30,
                seed: 1,
            },
            rows: vec![row("origin alone", 2000, None), row("cached, warm", 9000, Some(0.9))],
            sweep: outcome(100, wrong_bytes),
        }
    }

    #[test]
    fn the_table_holds_the_numbers() {
        let text = report(0).table();
        for expected in
            ["origin alone", "1 000", "4 500", "4.5×", "45.0 %", "90.0 %", "3.9", "100.0 µs"]
        {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(text.ends_with("verified 11 100 reads, 0 wrong bytes"), "{text}");
    }

    #[test]
    fn wrong_bytes_are_counted_wherever_they_were_read() {
        assert_eq!(report(3).wrong_bytes(), 3);
        assert_eq!(report(3).json()["wrong_bytes"], 3);
    }

    #[test]
    fn json_holds_the_numbers() {
        let value = report(0).json();
        assert_eq!(value["phases"][1]["iops"], 4500.0);
        assert_eq!(value["phases"][1]["speed_up"], 4.5);
        assert_eq!(value["phases"][0]["hit_ratio"], Value::Null);
        assert_eq!(value["phases"][1]["first_second_hit_ratio"], 0.45);
        assert_eq!(value["verified_reads"], 11_100);
        let mut report = report(0);
        report.rows[1].outcome.writes = 1;
        assert_eq!(report.json()["phases"][1]["speed_up"], Value::Null, "not the same work");
    }
}
