//! The plot of a replay, of a curve that a running cache has drawn.

use std::path::PathBuf;

use cache_engine::advice::simulate::{Outcome, Policy};
use cache_engine::advice::trace::Format;
use cache_engine::cache::LineSize;

use super::arguments::CacheSize;
use super::plot::{self, PlotFile};
use super::report::{Replayed, Row};
use crate::failure::Failure;

/// A file to draw a curve into.
#[derive(Clone, Debug)]
pub(crate) struct CurveFile(PlotFile);

impl CurveFile {
    /// # Errors
    /// When its name ends in neither .svg nor .png.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        PlotFile::parse(text).map(Self)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Draws `points` (bytes of a cache, share of the reads that it would miss).
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn draw(
        &self,
        title: &str,
        line_size: LineSize,
        points: &[(u64, f64)],
    ) -> Result<(), Failure> {
        plot::write(&[replayed(title, line_size, points)], &self.0)
    }
}

/// What a replay would have found: the drawing looks at sizes and hit ratios only.
fn replayed(title: &str, line_size: LineSize, points: &[(u64, f64)]) -> Replayed {
    const READS: u64 = 1_000_000;
    let row = |(size_bytes, miss_ratio): &(u64, f64)| {
        let read_hits = ((1.0 - miss_ratio) * READS as f64).round() as u64;
        let outcome = Outcome {
            size_bytes: *size_bytes,
            reads: READS,
            read_hits,
            blocks: READS,
            block_hits: read_hits,
            read_bytes: 0,
            origin_read_bytes: 0,
            origin_write_bytes: 0,
        };
        Row { size: CacheSize::Bytes(*size_bytes), line_size, policy: Policy::Lru, outcome }
    };
    Replayed {
        name: title.to_owned(),
        format: Format::Csv,
        requests: 0,
        writes: 0,
        footprint: 0,
        rows: points.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_with_its_title() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("curve.svg");
        let file = CurveFile::parse(path.to_str().expect("UTF-8")).expect("an ending");
        let points = [(1 << 20, 0.9), (1 << 21, 0.5), (1 << 22, 0.1)];
        file.draw("running", LineSize::default(), &points).expect("drawn");
        let text = std::fs::read_to_string(file.path()).expect("written");
        for expected in ["running, lines of 16k", "LRU", "1 MiB", "4 MiB", "80 %"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(CurveFile::parse("curve.pdf").is_err());
    }
}
