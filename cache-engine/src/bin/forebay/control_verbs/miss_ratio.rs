//! `forebay miss-ratio`.

use cache_engine::cache::LineSize;
use cache_engine::control::model::{Answer, Curve, CurvePoint, Request};

use super::arguments::MissRatioArguments;
use super::{ask, json, unexpected};
use crate::failure::Failure;
use crate::output::{self, table};

/// Shows what caches of other sizes would have missed.
///
/// # Errors
/// When nobody answers, the service draws no curve, or the plot cannot be written.
pub(crate) fn run(arguments: &MissRatioArguments) -> Result<(), Failure> {
    let curve = match ask(&arguments.socket, &Request::MissRatio {})? {
        Answer::MissRatio(curve) => curve,
        answer => return Err(unexpected(&answer)),
    };
    if let Some(file) = &arguments.plot {
        if curve.points.is_empty() {
            return Err(Failure::new(format!("{}: {NOTHING_YET}", file.path().display())));
        }
        let line_size = LineSize::from_bytes(curve.line_size).map_err(Failure::new)?;
        let points: Vec<_> = curve.points.iter().map(|p| (p.size_bytes, p.miss_ratio)).collect();
        file.draw("running cache", line_size, &points)?;
    }
    match arguments.json {
        true => output::print(json(&curve)?),
        false => output::print(shown(&curve)),
    }
}

const NOTHING_YET: &str = "too little was read for a curve; ask again later";

fn shown(curve: &Curve) -> String {
    if curve.points.is_empty() {
        return NOTHING_YET.to_owned();
    }
    let mut shown = table::new(&["cache size", "reads missed", ""], 0);
    let mut is_told = false;
    for point in powers(&curve.points) {
        // The first size that is as large as this cache stands for it.
        let is_ours = !is_told && point.size_bytes >= curve.capacity_bytes;
        is_told |= is_ours;
        shown.add_row([
            table::bytes(point.size_bytes),
            table::percent(point.miss_ratio),
            if is_ours { "this cache's size".to_owned() } else { String::new() },
        ]);
    }
    let ours = table::bytes(curve.capacity_bytes);
    format!("This cache has {ours}, lines of {}.\n{shown}", table::bytes(curve.line_size))
}

/// The last point of each power of two of bytes: enough for eyes.
fn powers(points: &[CurvePoint]) -> impl Iterator<Item = &CurvePoint> {
    points.iter().enumerate().filter_map(|(at, point)| {
        let octave = |point: &CurvePoint| point.size_bytes.next_power_of_two();
        let next = points.get(at + 1);
        next.is_none_or(|next| octave(next) != octave(point)).then_some(point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_power_of_two_and_marks_the_present_size() {
        let point = |(size_bytes, miss_ratio)| CurvePoint { size_bytes, miss_ratio };
        let points = [(4096, 0.9), (5120, 0.8), (8192, 0.7), (12288, 0.5), (16384, 0.25)];
        let points = points.map(point).to_vec();
        let curve = Curve { line_size: 4096, capacity_bytes: 8192, points };
        let text = shown(&curve);
        for (expected, is_there) in
            [("4.0 KiB", true), ("5.0 KiB", false), ("70.0 %", true), ("50.0 %", false)]
        {
            assert_eq!(text.contains(expected), is_there, "{expected} in {text}");
        }
        let marked = text.lines().find(|line| line.contains("this cache's size"));
        assert!(marked.is_some_and(|line| line.contains("8.0 KiB")), "{text}");
        assert_eq!(shown(&Curve { points: Vec::new(), ..curve }), NOTHING_YET);
    }
}
