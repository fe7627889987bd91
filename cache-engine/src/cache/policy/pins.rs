//! Pinned ranges of volumes: their lines are always admitted, and go for each other only.
//!
//! Ranges are widened to lines, sorted and merged, so that a line is looked up by bisection. Their
//! sum is bounded by a share of the cache. By default that is a quarter: sets are filled by hash,
//! so a quarter pinned means four of the sixteen ways of a set on the average, and more than
//! sixteen in one set in a million, where the oldest pinned line makes room for the newest.
//!
//! Absent: reading pinned ranges into the cache ahead of their first use.

use super::super::config::VolumeId;
use super::grammar::shown;
use super::rules::Pin;
use super::settings::PolicySettings;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PinnedRange {
    volume: u16,
    start: u64,
    end: u64,
}

/// The pinned ranges. See the module.
#[derive(Default)]
pub(super) struct Pins {
    /// By volume and start; no two of a volume touch.
    ranges: Box<[PinnedRange]>,
}

impl Pins {
    /// The pins of `settings` in a cache of `slots` lines of `line` bytes. Those of volumes that
    /// are not there count, and pin nothing.
    ///
    /// # Errors
    /// When they would take more than `pin-max`, in words for a person.
    pub(super) fn compile(
        settings: &PolicySettings,
        slots: u64,
        line: u64,
        volume: impl Fn(&str) -> Option<VolumeId>,
    ) -> Result<Self, String> {
        let most = settings.pin_max.lines(slots, line);
        let mut lines = 0_u64;
        let mut ranges = Vec::with_capacity(settings.pins.len());
        for pin in &settings.pins {
            let (start, end) = widened(pin, line);
            lines = lines.saturating_add((end - start) / line);
            if lines > most {
                return Err(format!(
                    "pin '{pin}': pins would take {} bytes, and pin-max={} of this cache are {} \
                     bytes; pin less or raise pin-max",
                    shown(lines.saturating_mul(line)),
                    settings.pin_max,
                    shown(most.saturating_mul(line)),
                ));
            }
            if let Some(VolumeId(volume)) = volume(&pin.volume) {
                ranges.push(PinnedRange { volume, start, end });
            }
        }
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joins = next.volume == kept.volume && next.start <= kept.end;
            if joins {
                kept.end = kept.end.max(next.end);
            }
            joins
        });
        Ok(Self { ranges: ranges.into_boxed_slice() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the line of a volume that holds the byte at `offset` is pinned.
    pub(super) fn contains(&self, volume: VolumeId, offset: u64) -> bool {
        if self.ranges.is_empty() {
            return false;
        }
        let before =
            self.ranges.partition_point(|range| (range.volume, range.start) <= (volume.0, offset));
        let last = before.checked_sub(1).map(|at| self.ranges[at]);
        last.is_some_and(|range| range.volume == volume.0 && offset < range.end)
    }
}

/// The whole lines that a pin touches.
fn widened(pin: &Pin, line: u64) -> (u64, u64) {
    let start = pin.range.start / line * line;
    let end = pin.range.end.div_ceil(line).saturating_mul(line);
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;

    const LINE: u64 = 16 << 10;

    fn volume(name: &str) -> Option<VolumeId> {
        ["pg", "vm"].iter().position(|known| *known == name).map(|at| VolumeId(at as u16))
    }

    fn compile(pins: &str, share: &str) -> Result<Pins, String> {
        let mut settings = PolicySettings::default();
        settings.change("pin", pins).expect(pins);
        settings.change("pin-max", share).expect(share);
        Pins::compile(&settings, 1000, LINE, volume)
    }

    #[test]
    fn lines_that_a_pin_touches_are_pinned_and_their_neighbours_are_not() {
        let pins = compile("volume=pg,range=20k-33k;volume=gone,range=0-1", "25%").expect("fits");
        let pinned: Vec<_> =
            (0..5).filter(|line| pins.contains(VolumeId(0), line * LINE + 9)).collect();
        assert_eq!(pinned, [1, 2]);
        assert!(!pins.contains(VolumeId(1), LINE), "of another volume");
        assert!(!compile("none", "25%").expect("fits").contains(VolumeId(0), 0));
    }

    #[test]
    fn more_than_the_share_is_refused_with_the_numbers() {
        assert!(compile("volume=pg,range=0-4000KiB", "25%").is_ok(), "250 of 1000 lines");
        let error = compile("volume=pg,range=1-4000KiB;volume=gone,range=0-1", "25%");
        let error = error.err().expect("251 lines");
        assert!(error.contains("pin 'volume=gone,range=0-1'"), "{error}");
        assert!(error.contains("would take 4016KiB") && error.contains("are 4000KiB"), "{error}");
        assert!(compile("volume=pg,range=0-16383PiB", "100%").is_err());
    }

    #[test]
    fn bisection_finds_what_looking_at_every_range_finds() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let ranges: Vec<(u16, u64, u64)> = (0..=random.below(12))
                .map(|_| {
                    let start = random.below(60);
                    (random.below(2) as u16, start, start + 1 + random.below(6))
                })
                .collect();
            let text: Vec<_> = ranges
                .iter()
                .map(|(id, start, end)| {
                    let name = ["pg", "vm"][usize::from(*id)];
                    format!("volume={name},range={}-{}", start * LINE, end * LINE)
                })
                .collect();
            let pins = compile(&text.join(";"), "100%").expect("fits");
            for id in 0..3 {
                for line in 0..70 {
                    let expected = ranges
                        .iter()
                        .any(|(v, start, end)| *v == id && (*start..*end).contains(&line));
                    let found = pins.contains(VolumeId(id), line * LINE);
                    assert_eq!(found, expected, "seed {seed}: {text:?}, {id}, line {line}");
                }
            }
        }
    }
}
