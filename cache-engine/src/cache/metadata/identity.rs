//! Whether what a cache holds may be served for the origin at hand.
//!
//! ```text
//!   superblock ─┐
//!   record ─────┼──▶ judge ──▶ Warm, or Cold and why
//!   claim ──────┘
//!    ├ identity, size     what the origin is, as found now
//!    ├ generation         what proves that nobody else wrote to it
//!    └ attachment         what this host noted down, outside the cache device, when last attached
//! ```
//! A cached line is right only as long as every write to the origin went through this cache. That
//! cannot be seen from the lines, so it is proved by three who must agree: the origin (it is the
//! same, and nobody else wrote to it), the cache device (it was left in a state that tells the
//! truth), and the host (this very device was the last cache of this origin). A copy of the cache
//! device, an older one, and one that was set aside for a while all fail on the third.
//!
//! Absent: finding any of it out ([`crate::backend::origin_identity`],
//! [`crate::backend::attachment`]).

use std::fmt;

use super::superblock::{State, Superblock};
use super::volume_record::{Generation, OriginIdentity, VolumeRecord};
use super::{FormatId, IdentityKind};

/// Who says under which generation the origin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerationSource {
    /// The caller, who knows of every writer.
    Caller(Generation),
    /// The origin itself changes it whenever it is written to.
    Origin(Generation),
    /// Nobody.
    None,
}

/// What the host noted when it last attached a cache to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Which cache: the format id of its device. None when the origin was given over to be
    /// written without any cache.
    pub format_id: Option<FormatId>,
    /// Higher at each attachment.
    pub epoch: u64,
}

/// What is found of an origin and its host now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which origin it is.
    pub identity: OriginIdentity,
    /// Its size in bytes.
    pub size: u64,
    /// Its generation.
    pub generation: GenerationSource,
    /// The host's attachment record of before this attachment; none where there is no record.
    pub attachment: Option<Attachment>,
}

/// Whether what is cached may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Warm,
    /// It may not, and has to be dropped.
    Cold(Reason),
}

/// Why a cache starts cold, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The cache failed while the origin went on.
    Degraded,
    /// The origin cannot be told from others.
    Unidentified,
    /// The record is of another origin.
    OtherOrigin {
        /// The one the cache was filled from.
        cached: OriginIdentity,
        /// The one at hand.
        found: OriginIdentity,
    },
    /// The origin was resized.
    OtherSize {
        /// Bytes when the cache was filled.
        cached: u64,
        /// Bytes now.
        found: u64,
    },
    /// The host has no record of the origin's last cache.
    NoAttachment,
    /// The host noted that the origin is written without a cache.
    Disowned,
    /// The origin's last cache was another one.
    OtherCache {
        /// This one.
        this: FormatId,
        /// The last one.
        last: FormatId,
    },
    /// The origin was attached later than the cache device knows of.
    MissedAttachments {
        /// The attachment that the cache device knows of.
        cached: u64,
        /// The last one.
        last: u64,
    },
    /// The cache device knows of attachments that the host's record does not.
    LostAttachments {
        /// The attachment that the cache device knows of.
        cached: u64,
        /// The last one that the host noted.
        last: u64,
    },
    /// The last use was under a lease, and did not end in order while that was held.
    LeaseRan,
    /// Nothing proves that nobody else wrote to the origin.
    NoProof,
    /// The cache was filled when nothing proved it.
    NoProofThen,
    /// Somebody else wrote to the origin.
    OtherGeneration {
        /// The generation when the cache was filled.
        cached: Generation,
        /// The generation now.
        found: Generation,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degraded => f.write_str(
                "the cache device failed in its last use, and the origin was written without it",
            ),
            Self::Unidentified => f.write_str(
                "the origin has nothing that tells it from others, such as a serial number",
            ),
            Self::OtherOrigin { cached, found } => {
                write!(f, "the origin is {found}, the cache was filled from {cached}")
            }
            Self::OtherSize { cached, found } => write!(
                f,
                "the origin has {found} bytes, it had {cached} when the cache was filled: \
                 it was resized"
            ),
            Self::NoAttachment => f.write_str(
                "this host has no record of the origin's last cache: the origin may have been \
                 written without this one",
            ),
            Self::Disowned => f.write_str(
                "this host noted that the origin was written without the cache, which did not \
                 answer any more",
            ),
            Self::OtherCache { this, last } => write!(
                f,
                "the origin's last cache was {last}, this one is {this}: it may have missed writes"
            ),
            Self::MissedAttachments { cached, last } => write!(
                f,
                "the cache device knows of attachment {cached}, the last one was {last}: it is an \
                 older copy, or the origin was used without it"
            ),
            Self::LostAttachments { cached, last } => write!(
                f,
                "the cache device knows of attachment {cached}, this host noted {last} as the \
                 last: the record is an older copy, or the cache was used on another host"
            ),
            Self::LeaseRan => f.write_str(
                "the cache was last used under a lease, and not stopped in order while that was \
                 held: somebody else may have written to the origin since",
            ),
            Self::NoProof => f.write_str(
                "the origin offers no generation and none was given: nothing proves that nobody \
                 else wrote to it",
            ),
            Self::NoProofThen => f.write_str(
                "no generation was known when the cache was filled: nothing proves that nobody \
                 else wrote to the origin since",
            ),
            Self::OtherGeneration { cached, found } => write!(
                f,
                "the origin's generation is {found}, the cache was filled under {cached}: \
                 somebody else wrote to it"
            ),
        }
    }
}

/// Whether the lines of a volume's record may be served for the origin that `claim` describes. The
/// reason given is the first that holds, the most telling first.
pub fn judge(record: &VolumeRecord, superblock: &Superblock, claim: &Claim) -> Verdict {
    match find_reason(record, superblock, claim) {
        Some(reason) => Verdict::Cold(reason),
        None => Verdict::Warm,
    }
}

fn find_reason(record: &VolumeRecord, superblock: &Superblock, claim: &Claim) -> Option<Reason> {
    if superblock.state == State::Degraded {
        return Some(Reason::Degraded);
    }
    if claim.identity.kind() == IdentityKind::Unknown {
        return Some(Reason::Unidentified);
    }
    if record.identity != claim.identity {
        let (cached, found) = (record.identity.clone(), claim.identity.clone());
        return Some(Reason::OtherOrigin { cached, found });
    }
    if record.size != claim.size {
        return Some(Reason::OtherSize { cached: record.size, found: claim.size });
    }
    if record.flags & VolumeRecord::LEASED != 0 {
        return Some(Reason::LeaseRan);
    }
    let Some(attachment) = claim.attachment else { return Some(Reason::NoAttachment) };
    let Some(last) = attachment.format_id else { return Some(Reason::Disowned) };
    if last != superblock.format_id {
        let this = superblock.format_id;
        return Some(Reason::OtherCache { this, last });
    }
    let (cached, last) = (record.attach_epoch, attachment.epoch);
    if cached < last {
        return Some(Reason::MissedAttachments { cached, last });
    }
    if cached > last {
        return Some(Reason::LostAttachments { cached, last });
    }
    let found = match &claim.generation {
        GenerationSource::Caller(found) | GenerationSource::Origin(found) => found,
        GenerationSource::None => return Some(Reason::NoProof),
    };
    if found.is_absent() {
        return Some(Reason::NoProof);
    }
    if record.generation.is_absent() {
        return Some(Reason::NoProofThen);
    }
    if record.generation != *found {
        let (cached, found) = (record.generation.clone(), found.clone());
        return Some(Reason::OtherGeneration { cached, found });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::LineSize;
    use crate::cache::metadata::Layout;
    use crate::cache::metadata::volume_record::tests::record;

    const THIS: FormatId = FormatId([1; 16]);
    const OTHER: FormatId = FormatId([2; 16]);

    /// A cache device, the record of its volume, and the origin, all of which agree.
    struct Scene {
        superblock: Superblock,
        record: VolumeRecord,
        claim: Claim,
    }

    impl Scene {
        fn new() -> Self {
            let layout = Layout::for_device(1 << 30, LineSize::default()).expect("fits");
            let mut superblock = Superblock::new(THIS, layout);
            superblock.state = State::InUse;
            let record = record(1);
            let claim = Claim {
                identity: record.identity.clone(),
                size: record.size,
                generation: GenerationSource::Caller(record.generation.clone()),
                attachment: Some(Attachment { format_id: Some(THIS), epoch: record.attach_epoch }),
            };
            Self { superblock, record, claim }
        }

        fn set_epoch(&mut self, epoch: u64) {
            self.claim.attachment = self.claim.attachment.map(|one| Attachment { epoch, ..one });
        }
    }

    type Change = fn(&mut Scene);

    fn generation(text: &str) -> Generation {
        Generation::new(text).expect("short")
    }

    #[test]
    fn a_cache_is_served_when_all_agree() {
        let changes: [(&str, Change); 3] = [
            ("the caller's generation", |_| {}),
            ("the origin's own", |scene| {
                let generation = scene.record.generation.clone();
                scene.claim.generation = GenerationSource::Origin(generation);
            }),
            ("left in order", |scene| scene.superblock.state = State::Clean),
        ];
        for (name, change) in changes {
            let mut scene = Scene::new();
            change(&mut scene);
            let verdict = judge(&scene.record, &scene.superblock, &scene.claim);
            assert_eq!(verdict, Verdict::Warm, "{name}");
        }
    }

    /// What is not as it should be, and words of the reason given.
    const COLD: [(&str, Change, &str); 17] = [
        (
            "a lease that ran when the last use ended",
            |scene| scene.record.flags |= VolumeRecord::LEASED,
            "under a lease, and not stopped in order",
        ),
        (
            "swapped caches of two origins",
            |scene| scene.record.identity = record(2).identity,
            "the origin is NVMe namespace nguid-1, the cache was filled from NVMe namespace \
             nguid-2",
        ),
        ("shrunk", |scene| scene.claim.size -= 512, "has 1073741312 bytes, it had 1073741824"),
        ("grown", |scene| scene.claim.size += 512, "it was resized"),
        ("a cloned cache disk whose twin was used since", |scene| scene.set_epoch(4), "older"),
        ("an older backup of the cache", |scene| scene.set_epoch(9), "attachment 3, the last"),
        ("an older backup of the host", |scene| scene.set_epoch(2), "noted 2 as the last"),
        (
            "two caches for one volume: the other was last",
            |scene| {
                let attachment = Attachment { format_id: Some(OTHER), epoch: 3 };
                scene.claim.attachment = Some(attachment);
            },
            "last cache was 02020202020202020202020202020202, this one is 0101",
        ),
        (
            "a cache that was lost while the origin went on",
            |scene| {
                let attachment = Attachment { format_id: None, epoch: 4 };
                scene.claim.attachment = Some(attachment);
            },
            "was written without the cache",
        ),
        ("another host, or a lost record", |scene| scene.claim.attachment = None, "no record"),
        (
            "somebody else wrote, the caller knows",
            |scene| scene.claim.generation = GenerationSource::Caller(generation("8")),
            "the origin's generation is 8, the cache was filled under 7: somebody else wrote \
             to it",
        ),
        (
            "somebody else wrote, the origin shows it",
            |scene| scene.claim.generation = GenerationSource::Origin(generation("8")),
            "somebody else wrote",
        ),
        (
            "no proof offered",
            |scene| scene.claim.generation = GenerationSource::None,
            "offers no generation and none was given",
        ),
        (
            "an empty proof, then and now",
            |scene| {
                scene.claim.generation = GenerationSource::Caller(Generation::default());
                scene.record.generation = Generation::default();
            },
            "offers no generation",
        ),
        (
            "no proof when it was filled",
            |scene| scene.record.generation = Generation::default(),
            "no generation was known when",
        ),
        ("degraded", |scene| scene.superblock.state = State::Degraded, "failed in its last"),
        (
            "an origin without an identity, then and now",
            |scene| {
                scene.claim.identity = OriginIdentity::unknown();
                scene.record.identity = OriginIdentity::unknown();
            },
            "nothing that tells it from others",
        ),
    ];

    #[test]
    fn a_cache_is_cold_for_whatever_reason_there_is() {
        for (name, change, words) in COLD {
            let mut scene = Scene::new();
            change(&mut scene);
            let verdict = judge(&scene.record, &scene.superblock, &scene.claim);
            let Verdict::Cold(reason) = verdict else { panic!("{name}: served") };
            let text = reason.to_string();
            assert!(text.contains(words), "{name}: {text}");
        }
    }
}
