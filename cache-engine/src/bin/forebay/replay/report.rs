//! What a replay found, for people and for programs.

use std::fmt::Write;

use cache_engine::advice::simulate::{Outcome, Policy};
use cache_engine::advice::trace::Format;
use cache_engine::cache::LineSize;
use serde_json::Value;

use super::arguments::CacheSize;
use crate::output::{json as values, table as tables};

/// A trace and what every cache did for it.
pub(super) struct Replayed {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) requests: u64,
    pub(super) writes: u64,
    /// Bytes of all different blocks of 4 KiB.
    pub(super) footprint: u64,
    pub(super) rows: Vec<Row>,
}

/// What one cache did.
pub(super) struct Row {
    pub(super) size: CacheSize,
    pub(super) line_size: LineSize,
    pub(super) policy: Policy,
    pub(super) outcome: Outcome,
}

impl Row {
    /// Bytes read from the origin for each byte that clients read.
    fn origin_share(&self) -> f64 {
        self.outcome.origin_read_bytes as f64 / self.outcome.read_bytes.max(1) as f64
    }

    fn size_text(&self) -> String {
        let bytes = tables::bytes(self.outcome.size_bytes);
        match self.size {
            CacheSize::Percent(_) => format!("{} = {bytes}", self.size),
            CacheSize::Bytes(_) => bytes,
        }
    }
}

/// For people.
pub(super) fn table(replayed: &[Replayed]) -> String {
    let header =
        ["line", "cache", "policy", "reads hit", "blocks hit", "read from origin", "of reads"];
    let mut text = String::new();
    for (index, replayed) in replayed.iter().enumerate() {
        let mut shown = tables::new(&header, 3);
        let mut group = None;
        for row in &replayed.rows {
            // What is the same as above is left out.
            let is_new = group.replace((row.line_size, row.size)) != group_of(row);
            let once = |text: String| if is_new { text } else { String::new() };
            shown.add_row([
                once(row.line_size.to_string()),
                once(row.size_text()),
                row.policy.to_string(),
                tables::percent(row.outcome.request_hit_ratio()),
                tables::percent(row.outcome.block_hit_ratio()),
                tables::bytes(row.outcome.origin_read_bytes),
                tables::percent(row.origin_share()),
            ]);
        }
        let gap = if index > 0 { "\n\n" } else { "" };
        write!(
            text,
            "{gap}{} ({}): {} requests, {} of them writes, on {} of different blocks\n{shown}",
            tables::printable(&replayed.name),
            replayed.format,
            tables::grouped(replayed.requests),
            tables::grouped(replayed.writes),
            tables::bytes(replayed.footprint),
        )
        .expect("a string takes everything");
    }
    text
}

fn group_of(row: &Row) -> Option<(LineSize, CacheSize)> {
    Some((row.line_size, row.size))
}

/// For programs.
pub(super) fn json(replayed: &[Replayed]) -> Value {
    let row = |row: &Row| {
        let outcome = &row.outcome;
        values::object([
            ("size", Value::from(row.size.to_string())),
            ("size_bytes", outcome.size_bytes.into()),
            ("line_size", row.line_size.bytes().into()),
            ("policy", row.policy.to_string().into()),
            ("reads", outcome.reads.into()),
            ("read_hits", outcome.read_hits.into()),
            ("request_hit_ratio", values::rounded(outcome.request_hit_ratio(), 6)),
            ("blocks", outcome.blocks.into()),
            ("block_hits", outcome.block_hits.into()),
            ("block_hit_ratio", values::rounded(outcome.block_hit_ratio(), 6)),
            ("read_bytes", outcome.read_bytes.into()),
            ("origin_read_bytes", outcome.origin_read_bytes.into()),
            ("origin_write_bytes", outcome.origin_write_bytes.into()),
        ])
    };
    let traces = replayed.iter().map(|replayed| {
        values::object([
            ("trace", Value::from(replayed.name.as_str())),
            ("format", replayed.format.to_string().into()),
            ("requests", replayed.requests.into()),
            ("writes", replayed.writes.into()),
            ("footprint_bytes", replayed.footprint.into()),
            ("results", replayed.rows.iter().map(row).collect()),
        ])
    });
    values::object([("traces", traces.collect::<Value>())])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A trace with two sizes and two policies.
    pub(in super::super) fn example() -> Replayed {
        let outcome = |size_bytes, read_hits| Outcome {
            size_bytes,
            reads: 1000,
            read_hits,
            blocks: 2000,
            block_hits: 2 * read_hits,
            read_bytes: 8_192_000,
            origin_read_bytes: 8_192_000 - 8192 * read_hits,
            origin_write_bytes: 4096,
        };
        let line_size = LineSize::ALL[0];
        let row = |percent, policy, size_bytes, read_hits| Row {
            size: CacheSize::Percent(percent),
            line_size,
            policy,
            outcome: outcome(size_bytes, read_hits),
        };
        Replayed {
            name: "disk.csv".to_owned(),
            format: Format::Csv,
            requests: 1234,
            writes: 234,
            footprint: 64 << 20,
            rows: vec![
                row(1.0, Policy::Ours, 655_360, 125),
                row(1.0, Policy::Lru, 655_360, 100),
                row(10.0, Policy::Ours, 6_553_600, 500),
                row(10.0, Policy::Lru, 6_553_600, 400),
            ],
        }
    }

    #[test]
    fn the_table_holds_the_numbers() {
        let text = table(&[example()]);
        assert!(
            text.starts_with("disk.csv (csv): 1 234 requests, 234 of them writes, on 64.0 MiB")
        );
        for expected in ["1% = 640.0 KiB", "12.5 %", "50.0 %", "87.5 %", "6.8 MiB", "ours", "lru"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert_eq!(text.matches("10% = ").count(), 1, "a group is named once");
    }

    #[test]
    fn json_holds_the_numbers() {
        let value = json(&[example()]);
        let trace = &value["traces"][0];
        assert_eq!(trace["footprint_bytes"], 64 << 20);
        assert_eq!(trace["results"][2]["request_hit_ratio"], 0.5);
        assert_eq!(trace["results"][2]["policy"], "ours");
        assert_eq!(trace["results"][1]["size"], "1%");
    }
}
